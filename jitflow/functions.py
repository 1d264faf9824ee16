"""The functions of the array API standard and a few more, as users call them: each an operator function, lifted."""

from __future__ import annotations

from jitflow.ops import (
    broadcast,
    cast,
    compare,
    creation,
    elementwise,
    exponential,
    index,
    joining,
    linalg,
    movement,
    padding,
    reduce,
    scan,
    trigonometric,
)
from jitflow.tensor import lift

# creation
arange = lift(creation.arange)
full = lift(creation.full)
full_like = lift(creation.full_like)
ones = lift(creation.ones)
ones_like = lift(creation.ones_like)
zeros = lift(creation.zeros)
zeros_like = lift(creation.zeros_like)

# elementwise
abs = lift(elementwise.abs)
add = lift(elementwise.add)
astype = lift(cast.astype)
bitwise_and = lift(compare.bitwise_and)
bitwise_invert = lift(compare.bitwise_invert)
bitwise_left_shift = lift(compare.bitwise_left_shift)
bitwise_or = lift(compare.bitwise_or)
bitwise_right_shift = lift(compare.bitwise_right_shift)
bitwise_xor = lift(compare.bitwise_xor)
ceil = lift(elementwise.ceil)
clip = lift(compare.clip)
cos = lift(trigonometric.cos)
divide = lift(elementwise.divide)
equal = lift(compare.equal)
erf = lift(trigonometric.erf)
exp = lift(exponential.exp)
floor = lift(elementwise.floor)
floor_divide = lift(elementwise.floor_divide)
greater = lift(compare.greater)
greater_equal = lift(compare.greater_equal)
isfinite = lift(compare.isfinite)
isinf = lift(compare.isinf)
isnan = lift(compare.isnan)
less = lift(compare.less)
less_equal = lift(compare.less_equal)
log = lift(exponential.log)
logical_and = lift(compare.logical_and)
logical_not = lift(compare.logical_not)
logical_or = lift(compare.logical_or)
logical_xor = lift(compare.logical_xor)
maximum = lift(compare.maximum)
minimum = lift(compare.minimum)
multiply = lift(elementwise.multiply)
negative = lift(elementwise.negative)
not_equal = lift(compare.not_equal)
positive = lift(elementwise.positive)
pow = lift(exponential.pow)
remainder = lift(elementwise.remainder)
round = lift(elementwise.round)
sign = lift(elementwise.sign)
sin = lift(trigonometric.sin)
sqrt = lift(exponential.sqrt)
square = lift(exponential.square)
subtract = lift(elementwise.subtract)
tanh = lift(trigonometric.tanh)
trunc = lift(elementwise.trunc)
where = lift(compare.where)

# movement and indexing
broadcast_to = lift(broadcast.broadcast_to)
concat = lift(joining.concat)
expand_dims = lift(movement.expand_dims)
flip = lift(movement.flip)
matrix_transpose = lift(movement.matrix_transpose)
moveaxis = lift(movement.moveaxis)
pad = lift(padding.pad)
permute_dims = lift(movement.permute_dims)
reshape = lift(movement.reshape)
roll = lift(movement.roll)
squeeze = lift(movement.squeeze)
stack = lift(joining.stack)
take = lift(index.take)

# reductions and products
all = lift(reduce.all)
any = lift(reduce.any)
argmax = lift(reduce.argmax)
argmin = lift(reduce.argmin)
dot = lift(linalg.dot)
einsum = lift(linalg.einsum)
inner = lift(linalg.inner)
kron = lift(linalg.kron)
matmul = lift(linalg.matmul)
max = lift(reduce.max)
mean = lift(reduce.mean)
min = lift(reduce.min)
outer = lift(linalg.outer)
prod = lift(reduce.prod)
std = lift(reduce.std)
sum = lift(reduce.sum)
tensordot = lift(linalg.tensordot)
var = lift(reduce.var)
vecdot = lift(linalg.vecdot)

# scans, sorting, scattering
cumulative_max = lift(scan.cumulative_max)
cumulative_min = lift(scan.cumulative_min)
cumulative_prod = lift(scan.cumulative_prod)
cumulative_sum = lift(scan.cumulative_sum)
logcumsumexp = lift(scan.logcumsumexp)

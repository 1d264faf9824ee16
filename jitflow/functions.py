"""The functions of the array API standard and a few more, as users call them: each an operator function, lifted."""

from __future__ import annotations

from jitflow.ops import (
    broadcast,
    cast,
    closeness,
    compare,
    counting,
    creation,
    data_dependent,
    differences,
    elementwise,
    exponential,
    floatbits,
    grids,
    index,
    joining,
    linalg,
    movement,
    nan_handling,
    padding,
    quantiles,
    rearranging,
    reduce,
    scan,
    scattering,
    sorting,
    splitting,
    trigonometric,
)
from jitflow.tensor import lift, lift_many

# creation
arange = lift(creation.arange)
broadcast_arrays = lift_many(grids.broadcast_arrays)
diag = lift(grids.diag)
empty = lift(creation.empty)
empty_like = lift(creation.empty_like)
eye = lift(grids.eye)
full = lift(creation.full)
full_like = lift(creation.full_like)
linspace = lift(grids.linspace)
meshgrid = lift_many(grids.meshgrid)
ones = lift(creation.ones)
ones_like = lift(creation.ones_like)
tril = lift(grids.tril)
triu = lift(grids.triu)
zeros = lift(creation.zeros)
zeros_like = lift(creation.zeros_like)

# elementwise
abs = lift(elementwise.abs)
acos = lift(trigonometric.acos)
acosh = lift(trigonometric.acosh)
add = lift(elementwise.add)
allclose = lift(closeness.allclose)
array_equal = lift(closeness.array_equal)
asin = lift(trigonometric.asin)
asinh = lift(trigonometric.asinh)
astype = lift(cast.astype)
atan = lift(trigonometric.atan)
atan2 = lift(trigonometric.atan2)
atanh = lift(trigonometric.atanh)
bitwise_and = lift(compare.bitwise_and)
bitwise_invert = lift(compare.bitwise_invert)
bitwise_left_shift = lift(compare.bitwise_left_shift)
bitwise_or = lift(compare.bitwise_or)
bitwise_right_shift = lift(compare.bitwise_right_shift)
bitwise_xor = lift(compare.bitwise_xor)
cbrt = lift(exponential.cbrt)
ceil = lift(elementwise.ceil)
clip = lift(compare.clip)
copysign = lift(floatbits.copysign)
cos = lift(trigonometric.cos)
cosh = lift(trigonometric.cosh)
count_nonzero = lift(closeness.count_nonzero)
divide = lift(elementwise.divide)
equal = lift(compare.equal)
erf = lift(trigonometric.erf)
exp = lift(exponential.exp)
exp2 = lift(exponential.exp2)
expm1 = lift(exponential.expm1)
floor = lift(elementwise.floor)
floor_divide = lift(elementwise.floor_divide)
fmax = lift(nan_handling.fmax)
fmin = lift(nan_handling.fmin)
greater = lift(compare.greater)
greater_equal = lift(compare.greater_equal)
hypot = lift(exponential.hypot)
isclose = lift(closeness.isclose)
isfinite = lift(compare.isfinite)
isin = lift(closeness.isin)
isinf = lift(compare.isinf)
isnan = lift(compare.isnan)
isneginf = lift(nan_handling.isneginf)
isposinf = lift(nan_handling.isposinf)
less = lift(compare.less)
less_equal = lift(compare.less_equal)
log = lift(exponential.log)
log10 = lift(exponential.log10)
log1p = lift(exponential.log1p)
log2 = lift(exponential.log2)
logaddexp = lift(exponential.logaddexp)
logical_and = lift(compare.logical_and)
logical_not = lift(compare.logical_not)
logical_or = lift(compare.logical_or)
logical_xor = lift(compare.logical_xor)
maximum = lift(compare.maximum)
minimum = lift(compare.minimum)
multiply = lift(elementwise.multiply)
nan_to_num = lift(nan_handling.nan_to_num)
negative = lift(elementwise.negative)
nextafter = lift(floatbits.nextafter)
not_equal = lift(compare.not_equal)
positive = lift(elementwise.positive)
pow = lift(exponential.pow)
reciprocal = lift(exponential.reciprocal)
remainder = lift(elementwise.remainder)
round = lift(elementwise.round)
rsqrt = lift(exponential.rsqrt)
sign = lift(elementwise.sign)
signbit = lift(floatbits.signbit)
sin = lift(trigonometric.sin)
sinh = lift(trigonometric.sinh)
sqrt = lift(exponential.sqrt)
square = lift(exponential.square)
subtract = lift(elementwise.subtract)
tan = lift(trigonometric.tan)
tanh = lift(trigonometric.tanh)
trunc = lift(elementwise.trunc)
where = lift(compare.where)

# movement and indexing
array_split = lift_many(splitting.array_split)
atleast_1d = lift(rearranging.atleast_1d)
atleast_2d = lift(rearranging.atleast_2d)
atleast_3d = lift(rearranging.atleast_3d)
broadcast_to = lift(broadcast.broadcast_to)
concat = lift(joining.concat)
diff = lift(differences.diff)
dsplit = lift_many(splitting.dsplit)
expand_dims = lift(movement.expand_dims)
flip = lift(movement.flip)
hsplit = lift_many(splitting.hsplit)
matrix_transpose = lift(movement.matrix_transpose)
moveaxis = lift(movement.moveaxis)
pad = lift(padding.pad)
permute_dims = lift(movement.permute_dims)
ravel = lift(rearranging.ravel)
repeat = lift(rearranging.repeat)
reshape = lift(movement.reshape)
roll = lift(movement.roll)
rot90 = lift(rearranging.rot90)
split = lift_many(splitting.split)
squeeze = lift(movement.squeeze)
stack = lift(joining.stack)
swapaxes = lift(rearranging.swapaxes)
take = lift(index.take)
take_along_axis = lift(index.take_along_axis)
tile = lift(rearranging.tile)
unstack = lift_many(splitting.unstack)
vsplit = lift_many(splitting.vsplit)

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
# what cannot be, and says so
argsort = lift(sorting.argsort)
argwhere = lift(data_dependent.argwhere)
bincount = lift(counting.bincount)
cumulative_max = lift(scan.cumulative_max)
cumulative_min = lift(scan.cumulative_min)
cumulative_prod = lift(scan.cumulative_prod)
cumulative_sum = lift(scan.cumulative_sum)
histogram = lift_many(counting.histogram)
logcumsumexp = lift(scan.logcumsumexp)
median = lift(quantiles.median)
nonzero = lift(data_dependent.nonzero)
percentile = lift(quantiles.percentile)
quantile = lift(quantiles.quantile)
scatter = lift(scattering.scatter)
scatter_along_axis = lift(scattering.scatter_along_axis)
searchsorted = lift(sorting.searchsorted)
segment_max = lift(scattering.segment_max)
segment_mean = lift(scattering.segment_mean)
segment_min = lift(scattering.segment_min)
segment_prod = lift(scattering.segment_prod)
segment_sum = lift(scattering.segment_sum)
sort = lift(sorting.sort)
top_k = lift_many(sorting.top_k)
unique_all = lift(data_dependent.unique_all)
unique_counts = lift(data_dependent.unique_counts)
unique_inverse = lift(data_dependent.unique_inverse)
unique_values = lift(data_dependent.unique_values)

"""The worker pool of a process as LLVM text: who runs which iterations of a parallel loop, and how workers sleep.

A *job* is one run of a parallel loop. It lies on the stack of its caller, who offers it to free workers and then works
on it as they do: whoever is free takes the next few iterations, until there are none left. Each begins in a segment of
its own and goes on in those of the others when that is done.

    caller    offer ──▶ work ──▶ take back what nobody has taken, wait for who has ──▶ return
                │                                    ▲
    worker  ─ spin ─▶ take ─▶ work ─▶ leave ─────────┘
               │ ▲              (spins again for 50 µs)
              park

One word of each worker, its mailbox, is all that the two agree on. It holds IDLE, PARKED, UNBORN, or the address of a
job, to which the worker adds 1 when it takes it:

- Whoever changes IDLE, PARKED or UNBORN to the address of a job has the worker; no other caller gets it meanwhile.
  So callers never wait for each other: one that finds no free worker works alone.
- Until the worker takes the job its caller may take it back. A worker that was woken for nothing finds IDLE.
- From address + 1 to IDLE only the worker changes it, which does not look at the job after that.

Waking a worker costs the caller microseconds, and it comes after 15 to 30 of them. A job that is too short for that is
offered only to workers that still spin. But many such jobs in a row pay for a wake-up together: what is done alone is
added up, as long as the next job comes before a worker would have gone to sleep again.

The text holds no address: what it needs of the process is in the `runtime.threads.Pool`.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from lowering import cpu
from lowering.passes.poll import WORK_BETWEEN_POLLS
from lowering.plan_llvm import DEFAULT_MXCSR
from lowering.target import Target, host
from runtime.abi import Watch
from runtime.threads import APART, IDLE, PARKED, SEGMENTS, UNBORN, Job, Pool, Segment, Team, Worker

#: Nanoseconds for which a worker that has nothing to do waits for more before it sleeps.
SPIN = 50_000
#: The work, in nanoseconds by estimate, that pays for waking a worker, and for one more worker that is awake.
WAKE, JOIN = 60_000, 5_000
#: Pieces that a job is cut into for each who works on it, and the least nanoseconds of a piece: one that is held up by
#: other processes leaves the rest to the others.
PIECES, LEAST_PIECE = 16, 2_000
#: Looks at a mailbox between two at the clock, and before a caller that waits lets others have the processor.
_LOOKS, _PATIENCE = 16, 256


@functools.cache
def pool_object() -> bytes:
    """Return the object code of the pool for this machine."""
    return cpu.compile_object(emit_pool(host()), host())


def emit_pool(target: Target) -> str:
    """Return the LLVM module of the pool; it defines ``pool.run`` and ``pool.quiesce``.

    ``i1 pool.run(ptr team, ptr task, ptr frame, i64 end, i64 limit, ptr scratch, i64 stride, ptr watch)``
        Have ``task(frame, scratch, watch, begin, end)`` do all iterations below `end`, here and by the team's workers.
        See `runtime.threads.Job`; `limit` iterations take as long as a run goes without a look. Says whether it was
        stopped.
    ``void pool.quiesce(ptr pool)``
        Let nobody begin anything, and wait until no worker is at work.
    """
    x86 = target.triple.startswith("x86_64")
    functions = [_CLOCK, _ASKED, _WORK, _PIN, _MOVE, _PAYS, _OFFER, _JOIN_WORKERS, _RUN, _QUIESCE, _worker(x86)]
    text = "\n".join(functions)
    text = text.replace("PAUSE", f"call void {'@llvm.x86.sse2.pause()' if x86 else '@llvm.aarch64.hint(i32 1)'}")
    return f'target datalayout = "{target.layout}"\ntarget triple = "{target.triple}"\n{text}'


def _at(base: str, field: Any) -> str:
    """Return the instruction that gives the address of `field` of the structure at `base`."""
    return f"getelementptr i8, ptr {base}, i64 {field.offset}"


#: The time in nanoseconds; 0 on a system without the clock.
_CLOCK = f"""
define internal i64 @pool.clock(ptr %pool) nounwind {{
  %time = alloca [2 x i64], align 16
  %gettime.at = {_at("%pool", Pool.clock_gettime)}
  %gettime = load ptr, ptr %gettime.at
  %none = icmp eq ptr %gettime, null
  br i1 %none, label %timeless, label %ask
ask:
  %clock.at = {_at("%pool", Pool.clock)}
  %clock = load i64, ptr %clock.at
  %number = trunc i64 %clock to i32
  %failed = call i32 %gettime(i32 %number, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %rest
  ret i64 %now
timeless:
  ret i64 0
}}
"""

#: What the watch of a worker answers: whether its job is to be given up.
_ASKED = f"""
define internal i32 @pool.asked(ptr %watch) nounwind {{
  %job.at = {_at("%watch", Watch.context)}
  %job = load ptr, ptr %job.at
  %stop.at = {_at("%job", Job.stop)}
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %answer = trunc i64 %stop to i32
  ret i32 %answer
}}
"""

#: Do iterations of a job until there are none left, or it is stopped, or the word at `halted` is not 0.
_WORK = f"""
define internal void @pool.work(ptr %job, i64 %number, ptr %scratch, ptr %watch, ptr %halted) nounwind {{
entry:
  %task.at = {_at("%job", Job.task)}
  %task = load ptr, ptr %task.at
  %frame.at = {_at("%job", Job.frame)}
  %frame = load ptr, ptr %frame.at
  %chunk.at = {_at("%job", Job.chunk)}
  %chunk = load i64, ptr %chunk.at
  %count.at = {_at("%job", Job.count)}
  %count = load i64, ptr %count.at
  %first = urem i64 %number, %count
  %segments = {_at("%job", Job.segments)}
  %stop.at = {_at("%job", Job.stop)}
  %watched = icmp ne ptr %watch, null
  br label %segment
segment:
  %done.with = phi i64 [ 0, %entry ], [ %done.now, %another ]
  %which = phi i64 [ %first, %entry ], [ %following, %another ]
  %offset = mul i64 %which, {ctypes.sizeof(Segment)}
  %it = getelementptr i8, ptr %segments, i64 %offset
  %next.at = {_at("%it", Segment.next)}
  %end.at = {_at("%it", Segment.end)}
  %end = load i64, ptr %end.at
  br label %check
check:
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %halt = load atomic i64, ptr %halted seq_cst, align 8
  %either = or i64 %stop, %halt
  %goes.on = icmp eq i64 %either, 0
  br i1 %goes.on, label %claim, label %leave
claim:
  %begin = atomicrmw add ptr %next.at, i64 %chunk monotonic
  %left = sub i64 %end, %begin
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %do, label %another
another:
  %done.now = add i64 %done.with, 1
  %beyond = add i64 %which, 1
  %wraps = icmp eq i64 %beyond, %count
  %following = select i1 %wraps, i64 0, i64 %beyond
  %more = icmp slt i64 %done.now, %count
  br i1 %more, label %segment, label %leave
do:
  %size = call i64 @llvm.smin.i64(i64 %left, i64 %chunk)
  %until = add i64 %begin, %size
  %stopped = call i1 %task(ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %until)
  br i1 %stopped, label %give.up, label %done
done:
  br i1 %watched, label %ask, label %check
ask:
  %look = load ptr, ptr %watch
  %answer = call i32 %look(ptr %watch)
  %fine = icmp eq i32 %answer, 0
  br i1 %fine, label %check, label %give.up
give.up:
  store atomic i64 1, ptr %stop.at monotonic, align 8
  br label %leave
leave:
  ret void
}}
"""

#: Let a thread run on one processor only.
_PIN = f"""
define internal void @pool.pin(ptr %pool, i64 %thread, i64 %processor) nounwind {{
  %set = alloca [16 x i64], align 16
  %affinity.at = {_at("%pool", Pool.set_affinity)}
  %affinity = load ptr, ptr %affinity.at
  %can = icmp ne ptr %affinity, null
  %known = icmp ult i64 %processor, 1024
  %both = and i1 %can, %known
  br i1 %both, label %pin, label %done
pin:
  call void @llvm.memset.p0.i64(ptr %set, i8 0, i64 128, i1 false)
  %word = lshr i64 %processor, 6
  %bit = and i64 %processor, 63
  %one = shl i64 1, %bit
  %word.at = getelementptr i64, ptr %set, i64 %word
  store i64 %one, ptr %word.at
  %id = trunc i64 %thread to i32
  %failed = call i32 %affinity(i32 %id, i64 128, ptr %set)
  br label %done
done:
  ret void
}}
"""

#: Move a worker away from the processor where its caller is, to the spare one, which is then the caller's.
_MOVE = f"""
define internal void @pool.move(ptr %pool, ptr %worker, i64 %here) cold nounwind {{
  %spare.at = {_at("%pool", Pool.spare)}
  %spare = atomicrmw xchg ptr %spare.at, i64 -1 monotonic
  %some = icmp sge i64 %spare, 0
  br i1 %some, label %move, label %stay
move:
  %processor.at = {_at("%worker", Worker.processor)}
  store i64 %spare, ptr %processor.at
  store atomic i64 %here, ptr %spare.at monotonic, align 8
  %thread.at = {_at("%worker", Worker.thread)}
  %thread = load i64, ptr %thread.at
  %runs = icmp ne i64 %thread, 0
  br i1 %runs, label %pin, label %stay
pin:
  call void @pool.pin(ptr %pool, i64 %thread, i64 %spare)
  br label %stay
stay:
  ret void
}}
"""

#: Tell whether work that is about to begin pays for waking workers, alone or with what was done just before.
_PAYS = f"""
define internal i1 @pool.pays(ptr %pool, i64 %work) nounwind {{
  %now = call i64 @pool.clock(ptr %pool)
  %until.at = {_at("%pool", Pool.alone_until)}
  %until = load atomic i64, ptr %until.at monotonic, align 8
  %gap = sub i64 %now, %until
  %recent = icmp slt i64 %gap, {SPIN}
  %credit.at = {_at("%pool", Pool.credit)}
  %credit = load atomic i64, ptr %credit.at monotonic, align 8
  %before = select i1 %recent, i64 %credit, i64 0
  %sum = add i64 %before, %work
  %pays = icmp sge i64 %sum, {WAKE}
  %left = select i1 %pays, i64 0, i64 %sum
  store atomic i64 %left, ptr %credit.at monotonic, align 8
  ret i1 %pays
}}
"""

#: Offer a job to at most `count` workers; return how many have it now.
_OFFER = f"""
define internal i64 @pool.offer(ptr %pool, ptr %job, i64 %count, i64 %work) nounwind {{
entry:
  %address = ptrtoint ptr %job to i64
  %table.at = {_at("%pool", Pool.workers)}
  %table = load ptr, ptr %table.at
  %all.at = {_at("%pool", Pool.count)}
  %all = load atomic i64, ptr %all.at monotonic, align 8
  %halted.at = {_at("%pool", Pool.halted)}
  %halted = load atomic i64, ptr %halted.at seq_cst, align 8
  %free = icmp eq i64 %halted, 0
  %wanted = select i1 %free, i64 %count, i64 0
  %some = icmp sgt i64 %wanted, 0
  br i1 %some, label %locate, label %nobody
locate:
  %current.at = {_at("%pool", Pool.current_processor)}
  %current = load ptr, ptr %current.at
  %known = icmp ne ptr %current, null
  br i1 %known, label %ask, label %next
ask:
  %number = call i32 %current()
  %at = sext i32 %number to i64
  br label %next
nobody:
  ret i64 0
next:
  %here = phi i64 [ -1, %locate ], [ %at, %ask ], [ %here, %another ]
  %k = phi i64 [ 0, %locate ], [ 0, %ask ], [ %k.next, %another ]
  %offered = phi i64 [ 0, %locate ], [ 0, %ask ], [ %offered.next, %another ]
  ; whether waking pays: 2 as long as nobody has asked
  %pays = phi i8 [ 2, %locate ], [ 2, %ask ], [ %pays.next, %another ]
  %more.workers = icmp slt i64 %k, %all
  %more.wanted = icmp slt i64 %offered, %wanted
  %goes.on = and i1 %more.workers, %more.wanted
  br i1 %goes.on, label %look, label %finish
look:
  %worker.at = getelementptr ptr, ptr %table, i64 %k
  %worker = load ptr, ptr %worker.at
  %mailbox = {_at("%worker", Worker.mailbox)}
  %state = load atomic i64, ptr %mailbox monotonic, align 8
  switch i64 %state, label %another [
    i64 {IDLE}, label %claim
    i64 {PARKED}, label %sleeps
    i64 {UNBORN}, label %sleeps
  ]
sleeps:
  %unasked = icmp eq i8 %pays, 2
  br i1 %unasked, label %weigh, label %weighed
weigh:
  %answer = call i1 @pool.pays(ptr %pool, i64 %work)
  %answer.8 = zext i1 %answer to i8
  br label %weighed
weighed:
  %decided = phi i8 [ %pays, %sleeps ], [ %answer.8, %weigh ]
  %wake = icmp eq i8 %decided, 1
  br i1 %wake, label %claim, label %another
claim:
  %pays.now = phi i8 [ %pays, %look ], [ %decided, %weighed ]
  %pair = cmpxchg ptr %mailbox, i64 %state, i64 %address seq_cst monotonic
  %claimed = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %claimed, label %won, label %another
won:
  %processor.at = {_at("%worker", Worker.processor)}
  %processor = load i64, ptr %processor.at
  %collides = icmp eq i64 %processor, %here
  br i1 %collides, label %move, label %rouse
move:
  call void @pool.move(ptr %pool, ptr %worker, i64 %here)
  br label %rouse
rouse:
  switch i64 %state, label %has [
    i64 {PARKED}, label %wake.up
    i64 {UNBORN}, label %start
  ]
wake.up:
  %release.at = {_at("%pool", Pool.release_lock)}
  %release = load ptr, ptr %release.at
  %lock.at = {_at("%worker", Worker.lock)}
  %lock = load ptr, ptr %lock.at
  call void %release(ptr %lock)
  br label %has
start:
  %start.at = {_at("%pool", Pool.start_thread)}
  %start.thread = load ptr, ptr %start.at
  %ident = call i64 %start.thread(ptr @pool.worker, ptr %worker)
  %failed = icmp eq i64 %ident, -1
  br i1 %failed, label %unborn, label %has
unborn:
  store atomic i64 {UNBORN}, ptr %mailbox release, align 8
  br label %another
has:
  br label %another
another:
  %one = phi i64 [ 0, %look ], [ 0, %weighed ], [ 0, %claim ], [ 0, %unborn ], [ 1, %has ]
  %pays.next = phi i8
    [ %pays, %look ], [ %decided, %weighed ], [ %pays.now, %claim ], [ %pays.now, %unborn ], [ %pays.now, %has ]
  %offered.next = add i64 %offered, %one
  %k.next = add i64 %k, 1
  br label %next
finish:
  ret i64 %offered
}}
"""

#: Take a job back from workers that have not taken it yet, and wait for those that have.
_JOIN_WORKERS = f"""
define internal void @pool.join(ptr %pool, ptr %job, ptr %watch) nounwind {{
entry:
  %offer = ptrtoint ptr %job to i64
  %taken = or i64 %offer, 1
  %table.at = {_at("%pool", Pool.workers)}
  %table = load ptr, ptr %table.at
  %all.at = {_at("%pool", Pool.count)}
  %all = load atomic i64, ptr %all.at monotonic, align 8
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %free ]
  %more = icmp slt i64 %k, %all
  br i1 %more, label %worker, label %joined
worker:
  %worker.at = getelementptr ptr, ptr %table, i64 %k
  %it = load ptr, ptr %worker.at
  %mailbox = {_at("%it", Worker.mailbox)}
  br label %look
look:
  %looks = phi i64 [ 0, %worker ], [ %looks.next, %wait ]
  %state = load atomic i64, ptr %mailbox acquire, align 8
  %is.offer = icmp eq i64 %state, %offer
  br i1 %is.offer, label %take.back, label %not.offer
take.back:
  %pair = cmpxchg ptr %mailbox, i64 %offer, i64 {IDLE} seq_cst monotonic
  %back = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %back, label %free, label %busy
not.offer:
  %is.taken = icmp eq i64 %state, %taken
  br i1 %is.taken, label %busy, label %free
busy:
  PAUSE
  %looks.next = add i64 %looks, 1
  %long = icmp ugt i64 %looks.next, {_PATIENCE}
  br i1 %long, label %wait.long, label %wait
wait.long:
  %yield.at = {_at("%pool", Pool.yield_processor)}
  %yield = load ptr, ptr %yield.at
  %can = icmp ne ptr %yield, null
  br i1 %can, label %let, label %ask
let:
  %failed = call i32 %yield()
  br label %ask
ask:
  %unwatched = icmp eq ptr %watch, null
  br i1 %unwatched, label %wait, label %asked
asked:
  %question = load ptr, ptr %watch
  %answer = call i32 %question(ptr %watch)
  %fine = icmp eq i32 %answer, 0
  br i1 %fine, label %wait, label %give.up
give.up:
  %stop.at = {_at("%job", Job.stop)}
  store atomic i64 1, ptr %stop.at monotonic, align 8
  br label %wait
wait:
  br label %look
free:
  %k.next = add i64 %k, 1
  br label %next
joined:
  ret void
}}
"""

_RUN = f"""
define i1 @pool.run(
    ptr %team, ptr %task, ptr %frame, i64 %end, i64 %limit, ptr %scratch, i64 %stride, ptr %watch
) nounwind {{
entry:
  %job = alloca [{ctypes.sizeof(Job)} x i8], align {APART}
  %pool.at = {_at("%team", Team.pool)}
  %pool = load ptr, ptr %pool.at
  %most.at = {_at("%team", Team.helpers)}
  %most = load i64, ptr %most.at
  %scaled = mul i64 %end, {WORK_BETWEEN_POLLS}
  %work = sdiv i64 %scaled, %limit
  %worth = sdiv i64 %work, {JOIN}
  %helpers = call i64 @llvm.smin.i64(i64 %most, i64 %worth)
  %all = add i64 %helpers, 1
  %pieces = mul i64 %all, {PIECES}
  %even = sdiv i64 %end, %pieces
  %least = sdiv i64 %limit, {WORK_BETWEEN_POLLS // LEAST_PIECE}
  %larger = call i64 @llvm.smax.i64(i64 %even, i64 %least)
  %some = call i64 @llvm.smax.i64(i64 %larger, i64 1)
  %chunk = call i64 @llvm.smin.i64(i64 %some, i64 %limit)
  %last = sub i64 %end, 1
  %others = sdiv i64 %last, %chunk
  %wanted = call i64 @llvm.smin.i64(i64 %helpers, i64 %others)
  %task.at = {_at("%job", Job.task)}
  store ptr %task, ptr %task.at
  %frame.at = {_at("%job", Job.frame)}
  store ptr %frame, ptr %frame.at
  %chunk.at = {_at("%job", Job.chunk)}
  store i64 %chunk, ptr %chunk.at
  %scratch.at = {_at("%job", Job.scratch)}
  store ptr %scratch, ptr %scratch.at
  %stride.at = {_at("%job", Job.stride)}
  store i64 %stride, ptr %stride.at
  %joined.at = {_at("%job", Job.joined)}
  store i64 0, ptr %joined.at
  %stop.at = {_at("%job", Job.stop)}
  store i64 0, ptr %stop.at
  %working = add i64 %wanted, 1
  %count = call i64 @llvm.smin.i64(i64 %working, i64 {SEGMENTS})
  %count.at = {_at("%job", Job.count)}
  store i64 %count, ptr %count.at
  %segments = {_at("%job", Job.segments)}
  br label %cut
cut:
  %k = phi i64 [ 0, %entry ], [ %k.next, %cut ]
  %begin = phi i64 [ 0, %entry ], [ %until, %cut ]
  %offset = mul i64 %k, {ctypes.sizeof(Segment)}
  %segment = getelementptr i8, ptr %segments, i64 %offset
  %k.next = add i64 %k, 1
  %part = mul i64 %end, %k.next
  %until = sdiv i64 %part, %count
  %from.at = {_at("%segment", Segment.next)}
  store i64 %begin, ptr %from.at
  %until.at = {_at("%segment", Segment.end)}
  store i64 %until, ptr %until.at
  %more = icmp slt i64 %k.next, %count
  br i1 %more, label %cut, label %offer
offer:
  %offered = call i64 @pool.offer(ptr %pool, ptr %job, i64 %wanted, i64 %work)
  %alone = icmp eq i64 %offered, 0
  br i1 %alone, label %by.itself, label %together
by.itself:
  store i64 %limit, ptr %chunk.at
  call void @pool.work(ptr %job, i64 0, ptr %scratch, ptr %watch, ptr %stop.at)
  %now = call i64 @pool.clock(ptr %pool)
  %alone.at = {_at("%pool", Pool.alone_until)}
  store atomic i64 %now, ptr %alone.at monotonic, align 8
  br label %done
together:
  call void @pool.work(ptr %job, i64 0, ptr %scratch, ptr %watch, ptr %stop.at)
  call void @pool.join(ptr %pool, ptr %job, ptr %watch)
  br label %done
done:
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  ret i1 %stopped
}}
"""

_QUIESCE = f"""
define void @pool.quiesce(ptr %pool) nounwind {{
entry:
  %halted.at = {_at("%pool", Pool.halted)}
  %before = atomicrmw add ptr %halted.at, i64 1 seq_cst
  %table.at = {_at("%pool", Pool.workers)}
  %table = load ptr, ptr %table.at
  %all.at = {_at("%pool", Pool.count)}
  %all = load atomic i64, ptr %all.at monotonic, align 8
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %k.next, %resting ]
  %more = icmp slt i64 %k, %all
  br i1 %more, label %worker, label %quiet
worker:
  %worker.at = getelementptr ptr, ptr %table, i64 %k
  %it = load ptr, ptr %worker.at
  %mailbox = {_at("%it", Worker.mailbox)}
  br label %look
look:
  %state = load atomic i64, ptr %mailbox seq_cst, align 8
  %odd = and i64 %state, 1
  %is.odd = icmp ne i64 %odd, 0
  %is.job = icmp ugt i64 %state, {UNBORN}
  %at.work = and i1 %is.odd, %is.job
  br i1 %at.work, label %wait, label %resting
wait:
  PAUSE
  %yield.at = {_at("%pool", Pool.yield_processor)}
  %yield = load ptr, ptr %yield.at
  %can = icmp ne ptr %yield, null
  br i1 %can, label %let, label %look
let:
  %failed = call i32 %yield()
  br label %look
resting:
  %k.next = add i64 %k, 1
  br label %next
quiet:
  ret void
}}
"""


def _worker(x86: bool) -> str:
    """Return the function that a worker runs as long as the process lives."""
    # Stores that bypass the cache are not ordered by what follows them, unless it is this.
    fence = "call void @llvm.x86.sse.sfence()" if x86 else "fence seq_cst"
    environment = (
        f"""store i32 {DEFAULT_MXCSR}, ptr %default
  call void @llvm.x86.sse.ldmxcsr(ptr %default)"""
        if x86
        else ""
    )
    return f"""
define internal void @pool.worker(ptr %worker) nounwind {{
entry:
  %default = alloca i32
  %watch = alloca [{ctypes.sizeof(Watch)} x i8], align 16
  %mailbox = {_at("%worker", Worker.mailbox)}
  %pool.at = {_at("%worker", Worker.pool)}
  %pool = load ptr, ptr %pool.at
  %lock.at = {_at("%worker", Worker.lock)}
  %lock = load ptr, ptr %lock.at
  %halted.at = {_at("%pool", Pool.halted)}
  %acquire.at = {_at("%pool", Pool.acquire_lock)}
  %acquire = load ptr, ptr %acquire.at
  %context.at = {_at("%watch", Watch.context)}
  store ptr @pool.asked, ptr %watch
  {environment}
  %mask.at = {_at("%pool", Pool.mask_signals)}
  %mask = load ptr, ptr %mask.at
  %masks = icmp ne ptr %mask, null
  br i1 %masks, label %block, label %unblocked
block:
  %how.at = {_at("%pool", Pool.block)}
  %how = load i64, ptr %how.at
  %how.32 = trunc i64 %how to i32
  %signals.at = {_at("%pool", Pool.signals)}
  %signals = load ptr, ptr %signals.at
  %blocked = call i32 %mask(i32 %how.32, ptr %signals, ptr null)
  br label %unblocked
unblocked:
  %id.at = {_at("%pool", Pool.thread_id)}
  %id = load ptr, ptr %id.at
  %has.id = icmp ne ptr %id, null
  br i1 %has.id, label %settle, label %awake
settle:
  %thread = call i64 %id()
  %thread.at = {_at("%worker", Worker.thread)}
  store i64 %thread, ptr %thread.at
  %processor.at = {_at("%worker", Worker.processor)}
  %processor = load i64, ptr %processor.at
  call void @pool.pin(ptr %pool, i64 %thread, i64 %processor)
  br label %awake
awake:
  %mine.at = {_at("%worker", Worker.number)}
  %mine = load i64, ptr %mine.at
  %since = call i64 @pool.clock(ptr %pool)
  br label %spin
spin:
  %looks = phi i64 [ {_LOOKS}, %awake ], [ %looks.next, %patient ], [ {_LOOKS}, %watch.clock ]
  %state = load atomic i64, ptr %mailbox acquire, align 8
  %is.job = icmp ugt i64 %state, {UNBORN}
  br i1 %is.job, label %take, label %nothing
nothing:
  PAUSE
  %looks.next = sub i64 %looks, 1
  %enough = icmp eq i64 %looks.next, 0
  br i1 %enough, label %watch.clock, label %patient
patient:
  br label %spin
watch.clock:
  %now = call i64 @pool.clock(ptr %pool)
  %spun = sub i64 %now, %since
  %long = icmp uge i64 %spun, {SPIN}
  %timeless = icmp eq i64 %now, 0
  %tired = or i1 %long, %timeless
  br i1 %tired, label %park, label %spin
park:
  %to.bed = cmpxchg ptr %mailbox, i64 {IDLE}, i64 {PARKED} seq_cst monotonic
  %parked = extractvalue {{ i64, i1 }} %to.bed, 1
  br i1 %parked, label %sleep, label %awake
sleep:
  %woken = call i32 %acquire(ptr %lock, i32 1)
  br label %awake
take:
  %taken = or i64 %state, 1
  %taking = cmpxchg ptr %mailbox, i64 %state, i64 %taken seq_cst monotonic
  %took = extractvalue {{ i64, i1 }} %taking, 1
  br i1 %took, label %work, label %awake
work:
  %job = inttoptr i64 %state to ptr
  store ptr %job, ptr %context.at
  %joined.at = {_at("%job", Job.joined)}
  %before = atomicrmw add ptr %joined.at, i64 1 monotonic
  %number = add i64 %before, 1
  %stride.at = {_at("%job", Job.stride)}
  %stride = load i64, ptr %stride.at
  %offset = mul i64 %stride, %number
  %scratch.at = {_at("%job", Job.scratch)}
  %first = load ptr, ptr %scratch.at
  %scratch = getelementptr i8, ptr %first, i64 %offset
  call void @pool.work(ptr %job, i64 %mine, ptr %scratch, ptr %watch, ptr %halted.at)
  {fence}
  store atomic i64 {IDLE}, ptr %mailbox release, align 8
  br label %awake
}}
"""

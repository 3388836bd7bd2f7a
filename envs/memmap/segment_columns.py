"""Columns of the arrays of ``AllocatorState``: numba compiles fifteen arrays far faster than one array per column."""

from __future__ import annotations

# access: (B, 11, A). Two lists of accesses stand among the columns: those of each buffer and of each cluster by time.
OP, BUFFER_OF, WRITE, BYTES, GROUP, SLOT, BY_BUFFER, BY_CLUSTER, SERVED_BY, RESIDENCE_OF, ACCESS_FORCED = range(11)
# record: (B, 6, A). Residences by offset, copies by start, and scratch of the repacker.
BY_OFFSET, QUEUE, CHAIN_HEAD, CHAIN_NEXT, CHAIN_ORDER, OLD_OFFSET = range(6)
# residence: (B, A, 8). The first five are those of ``MemoryPlan.residences``.
BUFFER, LAYER, OFFSET, FIRST, LAST, COPIES, USED, TOP = range(8)
# copy: (B, A, 5), those of ``MemoryPlan.copies``.
INWARD, COPY_LAYER, START, END = 1, 2, 3, 4
# seconds: (B, 3, A) by access, copy and place in the queue.
SAVING, DEMAND, FINISH = range(3)
# buffer: (B, 6, N + 1). Accesses of buffer n: access[BY_BUFFER, FIRST_ACCESS of n : FIRST_ACCESS of n + 1].
SIZE, OUTPUT, FIRST_ACCESS, HERE, VALID_FROM, HELD_UNTIL = range(6)
# cluster: (B, 3, C + 1), likewise with access[BY_CLUSTER]. PLACED is the layer, 0 before.
CLUSTER_ACCESS, PLACED, NEGLIGIBLE = range(3)
# group: (B, 2, G). Its offset in the cluster's layer, or one of the two values below.
GROUP_OFFSET, GROUP_FORCED = range(2)
UNDECIDED, SLOW = -1, -2
# op: (B, 3, T + 1). Copies under way are at UNDER_WAY outwards and UNDER_WAY + 1 inwards.
OP_ACCESS, UNDER_WAY = 0, 1
# time: (B, 8, T + 1) seconds over all trips, but of one trip for COMPUTE.
COMPUTE, TRIPS, BASE_LATENCY, BASE_SUPPLY, ELAPSED, LATENCY, SUPPLY, SERVED = range(8)
# moved: (B, 2, T, L, 2) bytes read and written.
ALL_SLOW, NOW = range(2)
# rate: (B, 3, L) and room: (B, 2, L).
READ, WRITTEN, LONGEST = range(3)
CAPACITY, ALIGNMENT = range(2)
# number: (B, 20). The last nine change while buffers are placed.
OPS, ACCESSES, BUFFERS, LAYERS, GROUPS, CLUSTERS = range(6)
MOST_REPACKS, RETRIES, MOST_UNDER_WAY, BY_ELAPSED, LOOKS_TWICE = range(6, 11)
RESIDENCES, COPIED, REPACKS, NO_ROOM, CROWDED, STALE, PLACEMENTS, LAST_LOOK, INVALID = range(11, 20)
# constant: (B, 8). SAVEABLE are the seconds that accesses would shorten their operations by, each alone, in all; the
# last two change.
LEAST, PREFERRED, RATIO, OVERHEAD, SLOW_LATENCY, SAVEABLE, SAVED, CARRY = range(8)

"""Rollouts: one artifact given to many devices, group by group, and stopped before it hurts more than the first of them.

states    the three state machines: of a rollout, of a group, of a device in a rollout
plan      what is asked for: groups, thresholds, soak, abort, retries, window
cohort    which device is in which group: by hash, and by tags
judge     from counts to what happens next (pure)
offer     from what a device tells to its input, and what it is given (pure)
rows      rows of devices in rollouts, many at once
store     rollouts made and steered
clock     what time brings to them
shown     what is told of them
fleet     what devices told of their updates, their tags and time zone
polling   the answer to a device, for many at once
routes    the route of the devices
"""

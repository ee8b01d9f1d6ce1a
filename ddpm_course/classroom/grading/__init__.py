"""Runs what students hand in, which nobody has read yet.

`submissions` finds notebooks and recognises them, `supervisor` starts a process for each, `attempt` is what runs in it,
`sandbox` confines it, and `figure` draws what `report` counted.
"""

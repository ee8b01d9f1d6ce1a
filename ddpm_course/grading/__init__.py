"""Runs what students hand in, which nobody has read yet; serves instructors, and no lesson.

`submissions` finds notebooks and recognises them, `running` starts a process for each, `attempt` is what runs in it,
`sandbox` confines it, and `figure` draws what `ddpm_course.report` counted.
"""

"""What instructors and builders use; no lesson imports it, and the wheel has none of it.

    python -m ddpm_course.classroom build 00 02     run these sources, write and run their student edition
    python -m ddpm_course.classroom verify          say what is wrong with any edition
    python -m ddpm_course.classroom release OUT     what an instructor hands out
    python -m ddpm_course.classroom report FOLDER   run what students handed in, count the mistakes
    python -m ddpm_course.classroom publish OWNER/NAME[@REF]    badges, setup cells and links of a fork or a release

Each command is a module of its own with two functions: `add_options(parser)` says what it takes, `run(options)` does it
and returns whether it failed; `options.root` is the clone. Below them lie `grading`, which runs strangers' code,
`editions`, which reads and makes notebooks, and `kernels`.
"""

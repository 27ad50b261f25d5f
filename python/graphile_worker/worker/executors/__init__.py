"""How a job's function is called: on the loop, in a thread, in a process, or as a program."""

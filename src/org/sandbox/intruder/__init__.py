"""The program that attacks a place from inside, in parts: it is sent there and run, never imported here.

    basics      what an attempt comes to, and how several are made at a time
    network     ways out by sockets
    relay       requests that the way to the model server must not let through
    hardware    what a machine's own root finds in it
    system      files, processes, privileges, limits
    firewall    whether the system inside refuses what it was not told to let out
    main        the table of the kinds of attempts

Standard library only, no import of `org`.
"""

PARTS = ("basics", "network", "relay", "hardware", "system", "firewall", "main")
"""In the order in which each finds what it imports."""

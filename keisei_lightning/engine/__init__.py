"""Engines: a policy behind the text protocols of game programs, on standard input and output.

::

    main thread                                search thread
    LineReader --> Program.handle(line) --jobs--> Thinker (agent, boards, trees) --> LineWriter
                        stop, ponderhit ------> Task (limits, deadline)

``usi`` speaks USI (shogi), ``ugi`` UGI (any game), ``gtp`` GTP (hex, othello). The main thread reads and never
computes, so that a stop is heard at once; boards belong to the search thread alone. No torch is imported before a
policy is loaded.
"""

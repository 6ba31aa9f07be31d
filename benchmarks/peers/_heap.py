"""What a small program needs so that its reads cost it no mapping of memory."""


def keep_reads_on_the_heap() -> None:
    """Make the C library keep blocks of 256 KiB on its heap.

    asyncio reads into a fresh block of that size. The GNU C library maps and unmaps each such block
    anew until the program has freed one that was larger (mallopt(3), M_MMAP_THRESHOLD), which a
    program that imports more has done by chance: three system calls and a page fault for each read
    that say nothing of a server.
    """
    block = bytes(1 << 20)
    del block

/*
 * Lets Criterion 2.4 run under ThreadSanitizer. Its sandbox maps an arena at an address it draws with
 * rand_r() between 0x200000000000 and 0x600000000000, most of which is TSan's shadow, where mmap() is
 * refused (https://github.com/Snaipe/Criterion/issues/274). This rand_r() takes the library's place and
 * draws from 0x550000000000 to 0x554000000000: open to applications under TSan, and below where the
 * kernel loads a position independent executable. Linked into the tests of the tsan build only.
 */
int rand_r(unsigned int *seed);

int rand_r(unsigned int *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    /* boxfort/src/arena.c: base = 0x200000000000 + (rand_r() & 0x3fffff) * 2^24 */
    return (int)(0x350000u + ((*seed >> 8) & 0x3fffu));
}

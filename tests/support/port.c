#include "port.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/random.h>

int test_port_choose(void)
{
    int lowest = 0;
    unsigned random = 0;
    FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    if (range == NULL || fscanf(range, "%d", &lowest) != 1 || lowest < 4096)
        lowest = 32768; /* Linux's default */
    if (range != NULL)
        (void)fclose(range);
    cr_assert_eq(getrandom(&random, sizeof random, 0), (ssize_t)sizeof random);
    return lowest / 2 + (int)(random % (unsigned)(lowest / 2));
}

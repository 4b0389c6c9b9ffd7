/* What the C library does with memory that is no longer needed. Libraries other than glibc decide for themselves. */
#include "memory.h"

#include <features.h>

#ifdef __GLIBC__
#include <malloc.h>

enum { LARGE = 1 << 20 };

void memory_map_large(void)
{
    mallopt(M_MMAP_THRESHOLD, LARGE);
}

void memory_trim(void)
{
    malloc_trim(0);
}
#else
void memory_map_large(void)
{
}

void memory_trim(void)
{
}
#endif

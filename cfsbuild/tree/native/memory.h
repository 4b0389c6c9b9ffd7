/* Memory that goes back to the system. */
#ifndef CFSBUILD_MEMORY_H
#define CFSBUILD_MEMORY_H

/* From now on a block of a megabyte or more is a mapping of its own, which ends with it. Else glibc takes the first
 * such block that is freed as a sign to keep the next ones in its heap, where what lies above them holds them. */
void memory_map_large(void);

/* Gives back what was freed: threads that have ended leave theirs in heaps that nobody else uses. */
void memory_trim(void);

#endif

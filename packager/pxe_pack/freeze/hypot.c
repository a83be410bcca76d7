/* hypot in the version that every glibc has. The one of 2.35 differs in not calling a handler for errors (glibc's NEWS),
   which nothing sets. Linked with --wrap=hypot. */
double first_hypot(double x, double y);
#if defined(__x86_64__)
__asm__(".symver first_hypot, hypot@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver first_hypot, hypot@GLIBC_2.17");
#else
#error "of this machine, the version of the first hypot is not known"
#endif
double __wrap_hypot(double x, double y);
double __wrap_hypot(double x, double y) { return first_hypot(x, y); }

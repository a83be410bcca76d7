# Finishes the freezing environment; run inside it by mmdebstrap's hook, in the folder that holds hypot.c and libraries/.
#
# Debian links libpython with libexpat, whose arc4random_buf needs glibc 2.36, and with the hypot of glibc 2.35. It also
# ships the objects that libpython was linked from, so it is linked again here: without what the frozen agent leaves out
# (XML, pickle, complex numbers), and with the first hypot. Then it needs glibc 2.34. A second, on 2 processors.
set -eu

config=$(echo /usr/lib/python3.11/config-3.11-*)
library=$(echo /usr/lib/*/libpython3.11.so.1.0)
grep -vwE 'PyInit_(pyexpat|_elementtree|_pickle|cmath)' "$config/config.c" >config.c
cp "$config/libpython3.11-pic.a" objects.a
ar d objects.a config.o pyexpat.o _elementtree.o _pickle.o cmathmodule.o
gcc -shared -s -O2 -fPIC -DPy_BUILD_CORE -I /usr/include/python3.11 -I /usr/include/python3.11/internal \
  -Wl,-soname,libpython3.11.so.1.0 -Wl,-Bsymbolic-functions -Wl,-z,relro -Wl,--no-undefined -Wl,--wrap=hypot \
  -o "$library" config.c hypot.c -Wl,--whole-archive objects.a -Wl,--no-whole-archive -lz -lm -ldl
ldconfig

# Two seconds here are two seconds less in each freeze.
python3.11 -m compileall -q /usr/lib/python3.11 libraries >compiled || true  # some are templates, or for other Pythons
# The compiler and what else a freeze has no use for: two thirds of the environment.
rm -rf compiled config.c objects.a "$config" /usr/include /usr/share /usr/lib/gcc /usr/lib/*/*.a \
  /usr/bin/*-lto-dump-* /usr/lib/*/lib[altu]*san.so.*

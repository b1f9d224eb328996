#!/usr/bin/env bash
# Installs into an empty prefix and builds programs against it, through CMake's find_package and through pkg-config.
. "$(dirname "$0")/lib.sh"
expect 0 "$CMAKE" --install "$BUILD" --prefix "$work/prefix"
expect 0 prefix/bin/lowbit --version
DESTDIR=$work/stage expect 0 "$CMAKE" --install "$BUILD" --prefix /usr
check "DESTDIR is respected" -x stage/usr/bin/lowbit

mkdir user
cat >user/train.c <<'END'
#include <lowbit/lowbit.h>
#include <stdio.h>
int main(void) {
    lb_ctx *ctx = NULL;
    lb_recipe *recipe = NULL;
    if (lb_ctx_create(NULL, &ctx) || lb_recipe_create(ctx, &recipe))
        return 1;
    lb_status status = lb_recipe_set(recipe, "train.epoch", "3"); /* misspelt */
    puts(lb_error(ctx));
    lb_recipe_destroy(recipe);
    lb_ctx_destroy(ctx);
    return status == LB_ERR_RECIPE ? 0 : 1;
}
END
cat >user/infer.c <<'END'
#include <lowbit/lowbit_rt.h>
int main(void) {
    lbrt_info info;
    return lbrt_probe("nonsense", 8, &info) == LBRT_OK;
}
END
cat >user/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(user C)
find_package(lowbit 0.1 REQUIRED)
add_executable(train train.c)
target_link_libraries(train PRIVATE lowbit::lowbit)
add_executable(infer infer.c)
target_link_libraries(infer PRIVATE lowbit::rt)
END
expect 0 "$CMAKE" -S user -B user/build -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_C_COMPILER="$CC"
expect 0 "$CMAKE" --build user/build
expect 0 user/build/train
says 'train\.epochs'
expect 0 user/build/infer

pc=$(dirname "$(find prefix -name lowbit.pc)")
export PKG_CONFIG_PATH=$work/$pc LD_LIBRARY_PATH=$work/$pc/.. # the latter for shared libraries only
for library in lowbit:train lowbit_rt:infer; do
    expect 0 pkg-config --print-errors --exists "${library%:*} >= 0.1"
    # shellcheck disable=SC2046
    expect 0 "$CC" -o "${library#*:}" "user/${library#*:}.c" $(pkg-config --cflags --libs "${library%:*}")
    expect 0 "./${library#*:}"
done

# The runtime needs nothing: no language but the project's own, no package. What lowbit::lowbit lacks is no error but a reason.
bare() { env PKG_CONFIG_LIBDIR=/nonexistent PKG_CONFIG_PATH= "$@"; }
mkdir bare
cp user/infer.c bare/infer.cc
cat >bare/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(bare CXX)
find_package(lowbit 0.1 REQUIRED COMPONENTS rt OPTIONAL_COMPONENTS lowbit)
message(STATUS "lowbit::lowbit: ${lowbit_lowbit_FOUND}")
add_executable(infer infer.cc)
target_link_libraries(infer PRIVATE lowbit::rt)
find_package(lowbit QUIET)
message(STATUS "all: ${lowbit_FOUND} ${lowbit_NOT_FOUND_MESSAGE}")
find_package(lowbit QUIET COMPONENTS training)
message(STATUS "unknown: ${lowbit_FOUND}")
END
try_bare() {
    expect 0 bare "$CMAKE" -S bare -B "bare/$1" -G Ninja -DCMAKE_PREFIX_PATH="$work/$1"
    says 'lowbit::lowbit: FALSE'
    says "all: $2"
    says 'unknown: 0'
    expect 0 "$CMAKE" --build "bare/$1"
    expect 0 "bare/$1/infer"
}
shared=$(sed -n 's/^BUILD_SHARED_LIBS:.*=//p' "$BUILD/CMakeCache.txt")
if ! command -v g++ >/dev/null; then
    echo "SKIPPED: a project in C++ alone (needs g++)"
elif [ -z "$shared" ] || [ "$shared" = OFF ]; then
    try_bare prefix '0 lowbit::lowbit needs.*OpenMP_C.*yaml-0\.1.*COMPONENTS rt'
fi

# It can be built without what training needs, too.
expect 0 bare "$CMAKE" -S "$SOURCE" -B alone -G Ninja -DLOWBIT_RUNTIME_ONLY=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER="$CC"
expect 0 "$CMAKE" --build alone
expect 0 "$CMAKE" --install alone --prefix "$work/runtime"
check "the runtime alone has no program" ! -e runtime/bin
check "the runtime alone has one header" "$(ls runtime/include/lowbit)" = lowbit_rt.h
! command -v g++ >/dev/null || try_bare runtime 1

# C++ programs use both libraries too.
if command -v g++ >/dev/null; then
    printf '#include <lowbit/lowbit.h>\n' | cat - user/infer.c >user/infer.cc
    # shellcheck disable=SC2046
    expect 0 g++ -std=c++11 -Wall -Wextra -Werror -pedantic -o infer++ user/infer.cc $(pkg-config --cflags --libs lowbit lowbit_rt)
    expect 0 ./infer++
else
    echo "SKIPPED: C++ (needs g++)"
fi
finish

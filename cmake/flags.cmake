# How everything is compiled: link with lowbit_flags.
get_filename_component(LOWBIT_ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

# -ffp-contract=off: a fused multiply-add in one place and not in another would break the equality of trainer and runtime.
add_library(lowbit_flags INTERFACE)
target_compile_options(lowbit_flags INTERFACE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wwrite-strings -ffp-contract=off -fno-math-errno)
# Another compiler's new warnings are no reason not to build; .ci/run, make sanitize and the presets for debugging are strict.
option(LOWBIT_WERROR "warnings are errors" OFF)
if(LOWBIT_WERROR)
  target_compile_options(lowbit_flags INTERFACE -Werror)
endif()
target_compile_definitions(lowbit_flags INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE)
target_include_directories(lowbit_flags INTERFACE ${LOWBIT_ROOT}/include ${LOWBIT_ROOT}/src ${LOWBIT_ROOT}/runtime ${PROJECT_BINARY_DIR}/generated)
if(LOWBIT_SANITIZE)
  target_compile_options(lowbit_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(lowbit_flags INTERFACE -fsanitize=address,undefined)
endif()
if(LOWBIT_COVERAGE)
  target_compile_options(lowbit_flags INTERFACE --coverage -O0)
  target_link_options(lowbit_flags INTERFACE --coverage)
endif()

# The runtime's tests that are not test programs, and its fuzzer.
if(LOWBIT_TESTS)
  if(NOT LOWBIT_SANITIZE AND NOT LOWBIT_COVERAGE AND NOT BUILD_SHARED_LIBS)
    add_test(NAME runtime.symbols COMMAND_EXPAND_LISTS
             COMMAND sh ${PROJECT_SOURCE_DIR}/tests/runtime/symbols.sh ${CMAKE_NM} $<TARGET_OBJECTS:lb_runtime>)
  endif()
  if(TARGET example_classify)
    add_test(NAME runtime.classify COMMAND sh ${PROJECT_SOURCE_DIR}/tests/runtime/classify.sh $<TARGET_FILE:test_runtime_format>
             $<TARGET_FILE:example_classify>)
  endif()
endif()

# cmake -DLOWBIT_FUZZ=ON -DCMAKE_C_COMPILER=clang; ninja fuzz_model && ./fuzz_model -max_total_time=600 CORPUS
option(LOWBIT_FUZZ "Build the fuzzer of the packed model (clang)" OFF)
if(LOWBIT_FUZZ)
  add_executable(fuzz_model tests/fuzz/fuzz_model.c ${runtime_sources})
  target_link_libraries(fuzz_model PRIVATE lowbit_flags)
  target_compile_options(fuzz_model PRIVATE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined)
  target_link_options(fuzz_model PRIVATE -fsanitize=fuzzer,address,undefined)
endif()

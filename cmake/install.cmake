# What `cmake --install` puts where: program, both libraries, headers, CMake package, pkg-config files.
include(CMakePackageConfigHelpers)

foreach(library lowbit lowbit_rt)
  target_include_directories(${library} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${library} PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  add_library(lowbit::${library} ALIAS ${library})
endforeach()
add_library(lowbit::rt ALIAS lowbit_rt)
set_target_properties(lowbit_rt PROPERTIES EXPORT_NAME rt)

if(BUILD_SHARED_LIBS)
  file(RELATIVE_PATH lib_from_bin ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
  set_target_properties(lowbit_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${lib_from_bin}")
endif()
install(TARGETS lowbit lowbit_rt EXPORT lowbitTargets)
install(TARGETS lowbit_cli)
install(FILES include/lowbit/lowbit.h include/lowbit/lowbit_rt.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lowbit)

# A static library's own libraries are its users' business.
if(BUILD_SHARED_LIBS)
  set(LOWBIT_SHARED ON)
  set(LOWBIT_PC_REQUIRES "Requires.private")
  set(LOWBIT_PC_LIBS "")
else()
  set(LOWBIT_SHARED OFF)
  set(LOWBIT_PC_REQUIRES "Requires")
  set(LOWBIT_PC_LIBS "-ldnnl ${OpenMP_C_FLAGS} -lpthread -lm")
endif()

file(RELATIVE_PATH LOWBIT_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lowbit)
configure_package_config_file(cmake/lowbitConfig.cmake.in ${PROJECT_BINARY_DIR}/lowbitConfig.cmake INSTALL_DESTINATION ${cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lowbitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lowbitConfig.cmake ${PROJECT_BINARY_DIR}/lowbitConfigVersion.cmake cmake/Finddnnl.cmake DESTINATION ${cmake_dir})
install(EXPORT lowbitTargets NAMESPACE lowbit:: DESTINATION ${cmake_dir})

# pkg-config finds the prefix from where the file lies, so --prefix and DESTDIR both work.
foreach(name lowbit lowbit_rt)
  configure_file(cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

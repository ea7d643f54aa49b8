# What `cmake --install` puts into a prefix: the program, the scripts, what they read, and the library for C++.

include(CMakePackageConfigHelpers)

# --- The program and the scripts
#
# bin/rometrace finds ../share/rometrace, and so do the scripts their package.
install(TARGETS rometrace_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/share/rometrace" DESTINATION "${CMAKE_INSTALL_DATADIR}")
set(_python_dir "${CMAKE_INSTALL_DATADIR}/rometrace/python")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/scripts/python/rometrace" DESTINATION "${_python_dir}"
  PATTERN __pycache__ EXCLUDE)

file(RELATIVE_PATH ROMETRACE_PYTHON_FROM_BIN "/${CMAKE_INSTALL_BINDIR}" "/${_python_dir}")
foreach(ROMETRACE_MODULE IN ITEMS plot_trace plot_summary plot_severed plot_neurons plot_edit report)
  string(REPLACE "_" "-" _command "rometrace-${ROMETRACE_MODULE}")
  configure_file("${PROJECT_SOURCE_DIR}/cmake/command.py.in" "${PROJECT_BINARY_DIR}/commands/${_command}" @ONLY)
  install(PROGRAMS "${PROJECT_BINARY_DIR}/commands/${_command}" DESTINATION "${CMAKE_INSTALL_BINDIR}")
endforeach()

# --- The library: find_package(rometrace) gives rometrace::rometrace

set(_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/rometrace")
target_compile_features(rometrace PUBLIC cxx_std_20)
install(TARGETS rometrace EXPORT rometraceTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT rometraceTargets NAMESPACE rometrace:: DESTINATION "${_package_dir}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/rometrace" "${PROJECT_BINARY_DIR}/include/rometrace"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp")

get_filename_component(ROMETRACE_BUILT_WITH_TORCH_ROOT "${ROMETRACE_TORCH_LIBRARY_DIR}" DIRECTORY)
string(REGEX MATCH "^[0-9]+\\.[0-9]+" ROMETRACE_BUILT_WITH_TORCH_MINOR "${ROMETRACE_TORCH_VERSION}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/rometraceConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/rometraceConfig.cmake" INSTALL_DESTINATION "${_package_dir}"
  NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/rometraceConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/rometraceConfig.cmake" "${PROJECT_BINARY_DIR}/rometraceConfigVersion.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/Libtorch.cmake" "${PROJECT_SOURCE_DIR}/cmake/FindLibcsv.cmake"
  DESTINATION "${_package_dir}")

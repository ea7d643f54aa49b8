# What goes into a wheel (pyproject.toml): bin/, share/ and the version of torch, inside the Python package.

list(GET _torch_pin 1 _pinned_version)
if(NOT "${_pinned_version}" MATCHES "^${ROMETRACE_TORCH_VERSION}([^0-9]|$)")
  message(FATAL_ERROR "rometrace: ${ROMETRACE_TORCH_LIBRARY_DIR} is of torch ${ROMETRACE_TORCH_VERSION}, expected "
    "${_pinned_version}, which ${Python_EXECUTABLE} has and the wheel's metadata ask for; leave "
    "ROMETRACE_TORCH_ROOT out")
endif()
file(WRITE "${PROJECT_BINARY_DIR}/torch_version.txt" "${ROMETRACE_TORCH_VERSION}\n")

# site-packages/rometrace/bin/rometrace finds site-packages/torch/lib, before whatever LD_LIBRARY_PATH names.
set_target_properties(rometrace_cli PROPERTIES INSTALL_RPATH "$ORIGIN/../../torch/lib")
target_link_options(rometrace_cli PRIVATE LINKER:--disable-new-dtags)

install(TARGETS rometrace_cli RUNTIME DESTINATION rometrace/bin)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/share/rometrace" DESTINATION rometrace/share)
install(FILES "${PROJECT_BINARY_DIR}/torch_version.txt" DESTINATION rometrace)
if(ROMETRACE_LICENCES)  # of the libraries that scripts/build_wheel puts inside
  install(DIRECTORY "${ROMETRACE_LICENCES}/" DESTINATION rometrace/licences)
endif()

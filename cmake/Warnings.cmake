# One private target with the project's warnings, so that users of the library do not inherit them.
add_library(rometrace_warnings INTERFACE)
target_compile_options(rometrace_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 warns falsely of std::string's own operator+ (GCC bug 105651).
  target_compile_options(rometrace_warnings INTERFACE -Wno-restrict)
endif()

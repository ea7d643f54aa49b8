# Finds libtorch and makes the target rometrace::libtorch; sets ROMETRACE_TORCH_VERSION and ROMETRACE_TORCH_LIBRARY_DIR.
#
# Looked for, in this order: ROMETRACE_TORCH_ROOT; Torch_DIR, Torch_ROOT and CMAKE_PREFIX_PATH as
# find_package(Torch) would; the virtual environment .venv of this checkout; the torch package of python3.
#
# find_package(Torch) itself is not used: with a CUDA build of torch it demands the CUDA toolkit, which nothing here
# compiles against. The include directories go in by -idirafter: torch's own include folder carries a copy of fmt,
# and would otherwise hide the one that the system's spdlog was built with.
#
# It is installed, too, and finds libtorch for users of the library: then what is missing makes rometrace not found.

set(ROMETRACE_TORCH_ROOT "" CACHE PATH "Folder of libtorch (holds include/ and lib/); empty: look for it")

macro(_torch_fail)
  string(CONCAT _torch_reason ${ARGN})
  if("${CMAKE_FIND_PACKAGE_NAME}" STREQUAL rometrace)
    set(rometrace_FOUND FALSE)
    set(rometrace_NOT_FOUND_MESSAGE "${_torch_reason}")
    return()
  endif()
  message(FATAL_ERROR "${_torch_reason}")
endmacro()

set(_torch_roots "")
foreach(_prefix IN ITEMS "${ROMETRACE_TORCH_ROOT}" "${Torch_ROOT}" "$ENV{Torch_ROOT}")
  if(_prefix)
    list(APPEND _torch_roots "${_prefix}")
  endif()
endforeach()
string(REPLACE ":" ";" _env_prefixes "$ENV{CMAKE_PREFIX_PATH}")
foreach(_prefix IN LISTS Torch_DIR CMAKE_PREFIX_PATH _env_prefixes)
  # `torch.utils.cmake_prefix_path` is <root>/share/cmake, Torch_DIR is <root>/share/cmake/Torch.
  list(APPEND _torch_roots "${_prefix}" "${_prefix}/../.." "${_prefix}/../../..")
endforeach()
if(DEFINED ENV{Torch_DIR})
  list(APPEND _torch_roots "$ENV{Torch_DIR}/../../..")
endif()
file(GLOB _venv_roots "${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
list(APPEND _torch_roots ${_venv_roots})

# What an earlier run found counts only as long as it was asked to look in the same places.
if(NOT "${_torch_roots}" STREQUAL "${ROMETRACE_TORCH_ROOTS_SEARCHED}")
  unset(ROMETRACE_TORCH_CPU_LIBRARY CACHE)
  unset(ROMETRACE_TORCH_INCLUDE_DIR CACHE)
  unset(ROMETRACE_C10_LIBRARY CACHE)
  unset(ROMETRACE_TORCH_LIBRARY CACHE)
endif()
set(ROMETRACE_TORCH_ROOTS_SEARCHED "${_torch_roots}" CACHE INTERNAL "Where the last run looked for libtorch")

find_library(ROMETRACE_TORCH_CPU_LIBRARY torch_cpu HINTS ${_torch_roots} PATH_SUFFIXES lib)
if(NOT ROMETRACE_TORCH_CPU_LIBRARY)
  find_program(_python3 python3)
  if(_python3)
    execute_process(
      COMMAND "${_python3}" -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE _python_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    find_library(ROMETRACE_TORCH_CPU_LIBRARY torch_cpu HINTS "${_python_root}" PATH_SUFFIXES lib)
  endif()
endif()
if(NOT ROMETRACE_TORCH_CPU_LIBRARY)
  _torch_fail(
    "rometrace: libtorch not found; install it (`pip install torch`, or the libtorch zip) and say where with "
    "-DROMETRACE_TORCH_ROOT=<folder with include/ and lib/> or -DCMAKE_PREFIX_PATH=...")
endif()

get_filename_component(ROMETRACE_TORCH_LIBRARY_DIR "${ROMETRACE_TORCH_CPU_LIBRARY}" DIRECTORY)
get_filename_component(_torch_root "${ROMETRACE_TORCH_LIBRARY_DIR}" DIRECTORY)
find_path(ROMETRACE_TORCH_INCLUDE_DIR ATen/ATen.h
  HINTS "${_torch_root}/include" "${_torch_root}/../include" NO_DEFAULT_PATH)
find_path(ROMETRACE_TORCH_INCLUDE_DIR ATen/ATen.h)
find_library(ROMETRACE_C10_LIBRARY c10 HINTS "${ROMETRACE_TORCH_LIBRARY_DIR}")
if(NOT ROMETRACE_TORCH_INCLUDE_DIR OR NOT ROMETRACE_C10_LIBRARY)
  _torch_fail("rometrace: ${ROMETRACE_TORCH_CPU_LIBRARY} was found, but not its headers or libc10")
endif()

# The version's numbers moved between headers from release to release.
set(_torch_version "")
foreach(_header IN ITEMS torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
  if(EXISTS "${ROMETRACE_TORCH_INCLUDE_DIR}/${_header}")
    file(STRINGS "${ROMETRACE_TORCH_INCLUDE_DIR}/${_header}" _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]")
    string(APPEND _torch_version "${_lines};")
  endif()
endforeach()
string(REGEX REPLACE "[^0-9]*([0-9]+)[^0-9]+([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2.\\3" ROMETRACE_TORCH_VERSION
  "${_torch_version}")
if(ROMETRACE_TORCH_VERSION VERSION_LESS 2.10)
  # Forgotten, so that the next run looks again and may find a newer one.
  unset(ROMETRACE_TORCH_CPU_LIBRARY CACHE)
  unset(ROMETRACE_TORCH_INCLUDE_DIR CACHE)
  unset(ROMETRACE_C10_LIBRARY CACHE)
  _torch_fail("rometrace: libtorch not found: ${_torch_root} has version ${ROMETRACE_TORCH_VERSION}, and 2.10 or newer "
    "is needed")
endif()

add_library(rometrace::libtorch INTERFACE IMPORTED GLOBAL)
target_compile_options(rometrace::libtorch INTERFACE
  "SHELL:-idirafter ${ROMETRACE_TORCH_INCLUDE_DIR}"
  "SHELL:-idirafter ${ROMETRACE_TORCH_INCLUDE_DIR}/torch/csrc/api/include")
target_link_libraries(rometrace::libtorch INTERFACE "${ROMETRACE_TORCH_CPU_LIBRARY}" "${ROMETRACE_C10_LIBRARY}")

# A GPU's kernels register themselves when their library is loaded; no symbol of it is named here. libtorch.so needs the
# library that its own build has, and has to be kept for that, so that what is linked here runs with either build.
find_library(ROMETRACE_TORCH_LIBRARY torch HINTS "${ROMETRACE_TORCH_LIBRARY_DIR}" NO_DEFAULT_PATH)
if(ROMETRACE_TORCH_LIBRARY AND NOT APPLE)
  target_link_libraries(rometrace::libtorch INTERFACE
    "-Wl,--push-state,--no-as-needed,${ROMETRACE_TORCH_LIBRARY},--pop-state")
endif()

message(STATUS "libtorch ${ROMETRACE_TORCH_VERSION}: ${_torch_root}")

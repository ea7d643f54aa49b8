# With CMAKE_UNITY_BUILD, as in the preset that users build with, sources are compiled many at a time, so that the large
# headers (libtorch's, nlohmann/json, CLI11, spdlog) are read once a unit and not once a file: it takes about a third
# of the time (scripts/benchmarks/benchmark_build.py). The price: sources of one unit must not use one name for two
# things of their own. The development preset compiles each source by itself.

# rometrace_units(<target> [<folders>...]): each further argument names folders, separated by spaces, whose sources are
# a unit; the sources of other folders are one more.
function(rometrace_units target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD_MODE GROUP)
  get_target_property(_sources ${target} SOURCES)
  foreach(_source IN LISTS _sources)
    get_filename_component(_folder "${_source}" DIRECTORY)
    get_filename_component(_folder "${_folder}" NAME)
    set(_unit rest)
    foreach(_folders IN LISTS ARGN)
      if(" ${_folders} " MATCHES " ${_folder} ")
        string(REPLACE " " "_" _unit "${_folders}")
      endif()
    endforeach()
    set_source_files_properties("${_source}" PROPERTIES UNITY_GROUP ${_unit})
  endforeach()
  if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A class that is defined in a source and holds what only that source knows: GCC takes the unit's parts for headers.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
endfunction()

# rometrace_precompile(<target> <headers>...): without CMAKE_UNITY_BUILD, as in the development preset, these headers of
# other people's are read once for the target's sources; not for those of rooms that see no libtorch, which take longer
# to load it than to read what they need.
function(rometrace_precompile target)
  if(CMAKE_UNITY_BUILD)
    return()
  endif()
  target_precompile_headers(${target} PRIVATE ${ARGN})
  get_target_property(_sources ${target} SOURCES)
  list(FILTER _sources INCLUDE REGEX "/(text|hub|facts|results|summary|report)/")
  set_source_files_properties(${_sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()

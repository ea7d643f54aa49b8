# For a wheel: libtorch is, unless another is named, the torch of the Python that builds it, so that the program is
# linked against the version that the wheel's metadata ask for (cmake/wheel/torch_pin.py).

execute_process(
  COMMAND "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/cmake/wheel/torch_pin.py"
  OUTPUT_VARIABLE _torch_pin RESULT_VARIABLE _failed OUTPUT_STRIP_TRAILING_WHITESPACE)
if(_failed)
  message(FATAL_ERROR "rometrace: ${Python_EXECUTABLE} does not tell which torch it has")
endif()
string(REPLACE "\n" ";" _torch_pin "${_torch_pin}")
if(NOT ROMETRACE_TORCH_ROOT)
  list(GET _torch_pin 0 ROMETRACE_TORCH_ROOT)
endif()

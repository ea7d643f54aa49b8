// A libFuzzer program for one target: compiled once for each, with its name as ROMETRACE_FUZZ_TARGET.

#include <cstdint>
#include <span>

#include "fuzz/fuzz_targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  rometrace::fuzzing::ROMETRACE_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
  return 0;
}

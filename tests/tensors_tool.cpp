// Test-only: prints the tensors of a weight file, so that tests in Python can compare with PyTorch.
//   rometrace_tensors FILE
// stdout, one JSON line a tensor: {"name": ..., "dtype": ..., "shape": [...], "strides": [...] or null, "bytes": hex}.
// Exit status: 0 read, 2 refused (the reason on stderr).

#include <cstddef>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/error.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/model/torch_file.hpp"
#include "rometrace/text/hex.hpp"
#include "tools.hpp"

namespace {

rometrace::WeightFile open(const std::filesystem::path& path) {
  if (path.extension() == ".safetensors") return rometrace::SafetensorsFile::open(path);
  return rometrace::TorchFile::open(path);
}

}  // namespace

int rometrace::testing::tensors(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: rometrace_tensors FILE\n";
    return 2;
  }
  try {
    const rometrace::WeightFile file = open(argv[1]);
    for (const rometrace::TensorView& tensor : file.tensors()) {
      nlohmann::json line = {
          {"name", tensor.name},
          {"dtype", tensor.dtype},
          {"shape", tensor.shape},
          {"bytes", rometrace::hex({reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()})}};
      line["strides"] = tensor.strides.empty() ? nlohmann::json() : nlohmann::json(tensor.strides);
      std::cout << line.dump() << '\n';
    }
  } catch (const rometrace::Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
  return 0;
}

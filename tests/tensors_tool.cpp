// Test-only: prints the tensors of a weight file, so that tests in Python can compare with PyTorch.
//   rometrace_tensors FILE
// stdout, one JSON line a tensor: {"name": ..., "dtype": ..., "shape": [...], "strides": [...] or null, "bytes": hex}.
// Of a GGUF file: those that are read, by name, their bytes as float32. Exit status: 0 read, 2 refused (the reason on
// stderr).

#include <cstddef>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "rometrace/error.hpp"
#include "rometrace/model/checkpoint.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/model/torch_file.hpp"
#include "rometrace/text/hex.hpp"
#include "tools.hpp"

namespace {

rometrace::WeightFile open(const std::filesystem::path& path) {
  if (path.extension() == ".safetensors") return rometrace::SafetensorsFile::open(path);
  return rometrace::TorchFile::open(path);
}

void print(const rometrace::TensorView& tensor, std::string_view bytes) {
  nlohmann::json line = {
      {"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"bytes", rometrace::hex(bytes)}};
  line["strides"] = tensor.strides.empty() ? nlohmann::json() : nlohmann::json(tensor.strides);
  std::cout << line.dump() << '\n';
}

void print_gguf(const std::filesystem::path& path) {
  const auto checkpoint = rometrace::Checkpoint::open(path);
  for (const auto& name : checkpoint.names()) {
    const auto& tensor = checkpoint.stored(name);
    const auto numbers = checkpoint.tensor(name, tensor.shape, at::kFloat);
    print(tensor, {static_cast<const char*>(numbers.const_data_ptr()), numbers.nbytes()});
  }
}

}  // namespace

int rometrace::testing::tensors(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: rometrace_tensors FILE\n";
    return 2;
  }
  try {
    if (std::filesystem::path(argv[1]).extension() == ".gguf") {
      print_gguf(argv[1]);
      return 0;
    }
    const rometrace::WeightFile file = open(argv[1]);
    for (const rometrace::TensorView& tensor : file.tensors()) {
      print(tensor, {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()});
    }
  } catch (const rometrace::Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
  return 0;
}

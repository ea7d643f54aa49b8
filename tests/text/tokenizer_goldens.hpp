#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace rometrace::testing {

inline std::filesystem::path source_path(const char* below_root) {
  return std::filesystem::path(ROMETRACE_SOURCE_DIR) / below_root;
}

inline std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What tests/judge/make_tokenizer_goldens.py wrote.
inline const nlohmann::json& tokenizer_goldens() {
  static const nlohmann::json goldens = nlohmann::json::parse(content_of(source_path("tests/goldens/tokenizer.json")));
  return goldens;
}

}  // namespace rometrace::testing

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "checks.hpp"
#include "fuzz/fuzz_targets.hpp"

namespace rometrace {
namespace {

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

TEST_CASE("what the fuzzers began with and what they found is read or refused, and nothing else") {
  const std::filesystem::path corpus = ROMETRACE_SOURCE_DIR "/tests/fuzz/corpus";
  for (const fuzzing::Target& target : fuzzing::kTargets) {
    const std::vector<std::filesystem::path> files = files_in(corpus / target.name);
    CHECK(files.size() >= 3);
    for (const std::filesystem::path& file : files) {
      std::ifstream stream(file, std::ios::binary);
      const std::string data{std::istreambuf_iterator<char>(stream), {}};
      try {
        target.run(std::as_bytes(std::span(data)));
      } catch (const std::exception& error) {
        FAIL_CHECK(target.name << ", " << file.filename().string() << ": " << error.what());
      }
    }
  }
}

}  // namespace
}  // namespace rometrace

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checks.hpp"
#include "fuzz/fuzz_targets.hpp"

namespace rometrace::corpus_test {
namespace {

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

/// What a fuzzer begins with, file by file.
struct Seed {
  std::string file, data;
};

std::vector<Seed> seeds_of(const fuzzing::Target& target) {
  std::vector<Seed> seeds;
  for (const auto& file : files_in(std::filesystem::path(ROMETRACE_SOURCE_DIR "/tests/fuzz/corpus") / target.name)) {
    std::ifstream stream(file, std::ios::binary);
    seeds.push_back({file.filename().string(), {std::istreambuf_iterator<char>(stream), {}}});
  }
  return seeds;
}

void check_is_read_or_refused(const fuzzing::Target& target, std::string_view data) {
  CHECK_NOTHROW(target.run(std::as_bytes(std::span(data))));
}

/// Makes files of files, as libFuzzer does without looking at what is covered; the same ones on every machine.
class Mutator {
 public:
  explicit Mutator(const std::vector<Seed>& seeds) : seeds_(seeds) {}

  std::string next() {
    std::string data = any_seed();
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) change(data);
    return data;
  }

 private:
  std::size_t below(std::size_t count) { return count == 0 ? 0 : random_() % count; }
  const std::string& any_seed() { return seeds_[below(seeds_.size())].data; }

  void change(std::string& data) {
    constexpr std::size_t kLongest = 64;
    constexpr std::string_view kTelling("\0\x01\x7f\x80\xff{}[]\",:\\\n0-.e", 18);
    const std::size_t at = below(data.size() + 1), length = 1 + below(kLongest);
    switch (below(6)) {
      case 0:
        if (at < data.size()) data[at] = static_cast<char>(data[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < data.size()) data[at] = kTelling[below(kTelling.size())];
        break;
      case 2:
        data.erase(at, length);
        break;
      case 3: {
        const std::string part = data.substr(at, length);
        data.insert(below(data.size() + 1), part);
        break;
      }
      case 4: {
        const std::string& other = any_seed();
        data.replace(at, length, other, below(other.size() + 1), length);
        break;
      }
      default:
        data.resize(at);
    }
  }

  const std::vector<Seed>& seeds_;
  std::mt19937_64 random_;  // with its own seed
};

TEST_CASE("what the fuzzers began with and what they found is read or refused, and nothing else") {
  for (const fuzzing::Target& target : fuzzing::kTargets) {
    const std::vector<Seed> seeds = seeds_of(target);
    CHECK(seeds.size() >= 3);
    for (const Seed& seed : seeds) {
      CAPTURE(target.name);
      CAPTURE(seed.file);
      check_is_read_or_refused(target, seed.data);
    }
  }
}

TEST_CASE("so are two thousand files made of them, a short run of each fuzzer") {
  constexpr int kFiles = 2000;
  for (const fuzzing::Target& target : fuzzing::kTargets) {
    const std::vector<Seed> seeds = seeds_of(target);
    Mutator mutator(seeds);
    for (int i = 0; i < kFiles; ++i) {
      CAPTURE(target.name);
      CAPTURE(i);
      check_is_read_or_refused(target, mutator.next());
    }
  }
}

}  // namespace
}  // namespace rometrace::corpus_test

#include "cli/commands/batch_command.hpp"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"

namespace rometrace::cli::batch_command_test {
namespace {

using nlohmann::json;
using testing::TemporaryFolder;

const std::filesystem::path kShare = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "share/rometrace";

// Runs batches of the demo model, quietly, with a cache of their own.
class Batches {
 public:
  Batches() {
    options_.model = (kShare / "demo").string();
    options_.facts.emplace().files = {(kShare / "facts.json").string()};
    options_.kinds = {Kind::kState};
    options_.samples = 2;
    options_.quiet = true;
    options_.noise = NoiseRule::parse("s3");
    ::setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
    spdlog::set_level(spdlog::level::warn);
    at::set_num_threads(1);  // as each of several models has
  }
  ~Batches() {
    spdlog::set_level(spdlog::level::info);
    ::unsetenv("XDG_CACHE_HOME");
  }

  Options& options() { return options_; }
  FactsOptions& facts() { return *options_.facts; }

  std::filesystem::path file(const std::string& name) const { return folder_.path() / name; }

  /// The lines of the file, without times and versions, after a run on so many models on the CPU.
  std::vector<json> run(const std::string& name, std::size_t models) {
    options_.output = file(name).string();
    options_.threads = 1;
    const std::vector<c10::Device> devices(models, c10::Device(c10::kCPU));
    status = run_batch_on(devices, options_, {});
    return lines(name);
  }

  std::vector<json> lines(const std::string& name) const {
    std::vector<json> lines;
    std::ifstream stream(file(name));
    for (std::string line; std::getline(stream, line);) {
      lines.push_back(json::parse(line));
      if (lines.back().contains("run")) lines.back()["run"].erase("seconds");
    }
    return lines;
  }

  int status = -1;

 private:
  TemporaryFolder folder_;
  Options options_;
};

TEST_CASE("a batch on several models writes the file that one makes") {
  Batches batches;
  batches.facts().selection.limit = 21;
  for (const std::int64_t share : {0, 1, 3}) {
    batches.facts().share = share;
    const auto name = std::to_string(share);
    const auto one = batches.run("one" + name, 1);
    REQUIRE(one.size() == 22);
    for (const std::size_t models : {2, 3}) {
      CHECK(batches.run("several" + name + std::to_string(models), models) == one);
      CHECK(batches.status == 0);
    }
  }
}

TEST_CASE("a file that was begun on one model is gone on with on several, and the other way round") {
  Batches batches;
  batches.facts().selection.limit = 20;
  batches.facts().share = 2;
  const auto whole = batches.run("whole", 1);
  std::ifstream stream(batches.file("whole"), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  for (const std::size_t models : {1, 3}) {
    for (const double part : {0.3, 0.5, 0.8}) {
      std::ofstream(batches.file("torn"), std::ios::binary)
          << bytes.substr(0, static_cast<std::size_t>(part * static_cast<double>(bytes.size())));
      CHECK(batches.run("torn", models) == whole);
      std::filesystem::remove(batches.file("torn"));
    }
  }
}

TEST_CASE("a probe on several models, and a batch of what is known, are those of one") {
  Batches batches;
  batches.facts().selection.limit = 300;
  batches.facts().probe = true;
  const auto one = batches.run("probe", 1);
  REQUIRE(one.size() == 301);
  CHECK(batches.run("probes", 3) == one);
  batches.facts().probe = false;
  batches.facts().only_known = true;
  batches.facts().known_by = parse_known_rule("said:1");
  batches.facts().selection.limit = 12;
  CHECK(batches.run("knowns", 3) == batches.run("known", 1));
}

}  // namespace
}  // namespace rometrace::cli::batch_command_test

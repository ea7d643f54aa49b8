#include "cli/commands/edit_each_command.hpp"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"

namespace rometrace::cli::edit_each_command_test {
namespace {

using nlohmann::json;
using testing::TemporaryFolder;

const std::filesystem::path kDemo = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "share/rometrace/demo";

json fact(const std::string& subject, const std::string& object, const json& other) {
  json record = {{"subject", subject}, {"prompt", "{} plays the"}, {"object", object}};
  if (!other.is_null()) record["object_new"] = other;
  return record;
}

// What does not say how long something took, nor where.
json without_times(json value) {
  if (value.is_array()) {
    for (auto& inner : value) inner = without_times(inner);
  }
  if (!value.is_object()) return value;
  for (auto entry = value.begin(); entry != value.end();) {
    if (entry.key().find("seconds") != std::string::npos) {
      entry = value.erase(entry);
    } else {
      entry.value() = without_times(entry.value());
      ++entry;
    }
  }
  return value;
}

std::vector<json> lines_of(const std::filesystem::path& file) {
  std::vector<json> lines;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) lines.push_back(without_times(json::parse(line)));
  return lines;
}

TEST_CASE("facts edited on several models have the lines that one gives, refused and bad ones among them, in order") {
  const TemporaryFolder folder;
  ::setenv("XDG_CACHE_HOME", folder.path().c_str(), 1);
  spdlog::set_level(spdlog::level::err);
  at::set_num_threads(1);
  EditOptions options;
  options.run.model = kDemo.string();
  options.run.quiet = true;
  options.run.threads = 1;
  options.each = true;
  options.steps = 3;
  options.templates = "none";
  options.no_moment = true;
  options.layers = {2};
  options.facts = {
      folder
          .write("facts.json",
                 json{fact("Miles Davis", "trumpet", "guitar"), fact("John Coltrane", "saxophone", nullptr),
                      fact("Louis Armstrong", "trumpet", "piano"), fact("Miles Davis", "trumpet", "trumpet"),
                      fact("John Coltrane", "saxophone", "violin")}
                     .dump())
          .string()};
  const auto run = [&](const std::string& name, std::size_t models) {
    options.run.output = (folder.path() / name).string();
    run_edit_each_on(std::vector<c10::Device>(models, c10::Device(c10::kCPU)), options, {});
    return lines_of(folder.path() / name);
  };
  const auto one = run("one", 1);
  REQUIRE(one.size() == 6);
  CHECK(one[1]["status"] == "edited");
  CHECK(one[2]["status"] == "skipped");
  CHECK(one[3]["status"] == "edited");
  CHECK(run("two", 2) == one);
  CHECK(run("three", 3) == one);

  std::ifstream stream(folder.path() / "one", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  folder.write("torn", bytes.substr(0, bytes.size() / 2));
  CHECK(run("torn", 3) == one);
  spdlog::set_level(spdlog::level::info);
  ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace rometrace::cli::edit_each_command_test

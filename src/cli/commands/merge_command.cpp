#include "cli/commands/merge_command.hpp"

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <string_view>

#include "cli/files/file_system.hpp"
#include "cli/files/output_file.hpp"
#include "rometrace/error.hpp"

namespace rometrace::cli {

namespace fs = std::filesystem;

namespace {

void check_files(const MergeOptions& options) {
  std::error_code ignored;
  for (std::size_t i = 0; i < options.files.size(); ++i) {
    const auto& file = options.files[i];
    const bool is_output = options.output && *options.output != "-" && fs::equivalent(file, *options.output, ignored);
    if (is_output && fs::is_regular_file(file, ignored)) {
      throw Error("-o " + shown(*options.output) + ": is one of the files to be merged; give another name");
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (fs::equivalent(file, options.files[j], ignored)) {
        throw Error("merge: " + shown(file) + " is given twice; give each file once");
      }
    }
  }
}

/// Lets as many files be open as the system allows: all shards are, at once.
void raise_open_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// Gathers small pieces, since each write of an output asks first whether it can be written to.
class Gathered {
 public:
  explicit Gathered(std::function<void(std::string_view)> write) : write_(std::move(write)) {}

  void add(std::string_view piece) {
    pending_ += piece;
    if (pending_.size() >= kEnough) flush();
  }
  void flush() {
    write_(pending_);
    pending_.clear();
  }

 private:
  static constexpr std::size_t kEnough = std::size_t{1} << 20U;

  std::function<void(std::string_view)> write_;
  std::string pending_;
};

}  // namespace

int run_merge(const MergeOptions& options, const std::stop_token& stop) {
  check_files(options);
  raise_open_files();
  std::optional<OutputFile> file;
  if (options.output && *options.output != "-") file.emplace(*options.output);
  Gathered output([&](std::string_view bytes) { file ? file->write(bytes, stop) : write_stdout(bytes, stop); });
  const auto report = merge_results(
      options.files, options.rules, [&](std::string_view piece) { output.add(piece); }, stop);
  output.flush();
  if (file) file->commit();

  for (const auto& note : report.notes) spdlog::warn("{}", note);
  if (!report.missing.empty()) spdlog::warn("{}", report.missing);
  if (report.overlaps > 0)
    spdlog::warn("{} lines of facts that a file named earlier has were left out", report.overlaps);
  spdlog::info("{} of {} facts from {} {}", report.lines, report.selected, options.files.size(),
               options.files.size() == 1 ? "file" : "files");
  return 0;
}

}  // namespace rometrace::cli

#include "cli/summary_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "cli/output_file.hpp"
#include "cli/progress_bar.hpp"
#include "cli/terminal_info.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/summary_json.hpp"
#include "rometrace/report/summary_text.hpp"
#include "rometrace/study/summary.hpp"
#include "rometrace/study/summary_reader.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return a == b || (a != "-" && b != "-" && std::filesystem::equivalent(a, b, ignored));
}

void check_files(const std::vector<std::string>& files) {
  if (files.empty()) throw Error("no results file; name those that rometrace --facts wrote, or - for standard input");
  for (auto file = files.begin(); file != files.end(); ++file) {
    const auto again = std::find_if(files.begin(), file, [&](const auto& other) { return same_file(*file, other); });
    if (again != file) throw Error(label_of(*file) + ": the same file twice; a fact counts once, name each file once");
  }
}

std::uint64_t size_of(const std::vector<std::string>& files) {
  std::uint64_t size = 0;
  for (const auto& file : files) {
    std::error_code error;
    const auto bytes = file == "-" ? 0 : std::filesystem::file_size(file, error);
    if (!error) size += bytes;
  }
  return size;
}

bool is_probe(const SummaryLine& line) {
  return line.type == SummaryLine::Type::kProbe ||
         (line.type == SummaryLine::Type::kHeader && line.json.contains("command") && line.json["command"] == "probe");
}

/// Averages of a study's traces. Probes have a summary of their own.
SummaryResult summarise(const SummaryOptions& options, const std::stop_token& stop) {
  Summary summary({options.by_relation, options.bootstrap, options.seed});
  ProgressBar bar(options.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  const auto progress = bar.callback();
  const auto total = size_of(options.files);
  std::uint64_t read = 0;
  for (const auto& file : options.files) {
    SummaryReader reader(file, stop);
    SummaryLine line;
    while (reader.next(line)) {
      if (stop.stop_requested()) throw Interrupted();
      if (is_probe(line)) throw Error(line.where + ": results of a probe; expected those of a trace");
      summary.add(line);
      if (progress && total > 0) {
        const auto done = std::min(total, read + reader.bytes_read());
        progress(static_cast<std::int64_t>(done), static_cast<std::int64_t>(total));
      }
    }
    summary.end_file(reader);
    read += reader.size();
  }
  return summary.result();
}

}  // namespace

int run_summary(const SummaryOptions& options, const std::stop_token& stop) {
  check_files(options.files);
  std::optional<OutputFile> file;
  if (options.output && *options.output != "-") file.emplace(*options.output);

  const auto result = summarise(options, stop);
  for (const auto& warning : result.warnings) spdlog::warn("{}", warning);
  const bool to_stdout = options.json || (!file && (!is_terminal(STDOUT_FILENO) || options.output == "-"));
  if (file || to_stdout) {
    const auto line = to_line(to_json(result)) + "\n";
    if (file) {  // first: a stdout that fails then loses nothing
      file->write(line, stop);
      file->commit();
    }
    if (to_stdout) write_stdout(line, stop);
  }
  if (!to_stdout && is_terminal(STDOUT_FILENO)) {
    write_stdout(render_summary(result, terminal_style(STDOUT_FILENO)), stop);
  }
  return 0;
}

}  // namespace rometrace::cli

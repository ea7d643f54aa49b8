#include "cli/commands/export_command.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string_view>

#include "cli/exit_status.hpp"
#include "cli/files/file_system.hpp"
#include "cli/files/output_file.hpp"
#include "cli/progress_bar.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/record_reader.hpp"
#include "rometrace/report/result_file.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

void check_export(const ExportOptions& options) {
  const auto& files = options.files;
  for (auto file = files.begin(); file != files.end(); ++file) {
    if (std::any_of(files.begin(), file, [&](const auto& other) { return same_file(*file, other); })) {
      throw Error(label_of(*file) + ": the same file twice; name each file once");
    }
    if (options.output && *options.output != "-" && same_file(*file, *options.output)) {
      throw Error(label_of(*file) + ": is to be read and written; name another file with -o");
    }
  }
}

/// What became of the records.
struct RecordCounts {
  std::int64_t records = 0;
  std::int64_t skipped = 0;
  std::int64_t failed = 0;
};

std::string counted(std::int64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

/// "12 records (1 skipped, 2 failed)".
std::string words_of_counts(const RecordCounts& counts) {
  std::string left_out;
  if (counts.skipped > 0) left_out = std::to_string(counts.skipped) + " skipped";
  if (counts.failed > 0) left_out += (left_out.empty() ? "" : ", ") + std::to_string(counts.failed) + " failed";
  return counted(counts.records, "record") + (left_out.empty() ? "" : " (" + left_out + ")");
}

using TakeRecord = std::function<void(const TraceRecord& record, const ResultFile& file, const ResultRecord& place)>;

RecordCounts for_each_record(const ExportOptions& options, const std::stop_token& stop, const TakeRecord& take) {
  ProgressBar bar(options.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  const auto progress = bar.callback();
  RecordCounts counts;
  for (const auto& name : options.files) {
    ResultFile file(name, stop);
    while (const auto place = file.next()) {
      if (stop.stop_requested()) throw Interrupted();
      const auto record = read_trace_record(place->json, place->where);
      ++counts.records;
      if (record.verdict.status == Status::kSkipped) ++counts.skipped;
      if (record.verdict.status == Status::kFailed) ++counts.failed;
      take(record, file, *place);
      if (progress && file.size() > 0) {
        progress(static_cast<std::int64_t>(std::min(file.size(), file.bytes_read())),
                 static_cast<std::int64_t>(file.size()));
      }
    }
    if (!file.torn().empty()) spdlog::warn("{}", file.torn());
  }
  return counts;
}

int export_csv(const ExportOptions& options, const std::stop_token& stop) {
  std::optional<OutputFile> file;
  if (options.output && *options.output != "-") file.emplace(*options.output);
  CsvTable table(options.what,
                 [&](std::string_view text) { file ? file->write(text, stop) : write_stdout(text, stop); });
  bool has_grids = false, has_neurons = false;
  const auto counts = for_each_record(options, stop, [&](const auto& record, const auto& from, const auto& place) {
    has_grids |= !record.trace.grids.empty();
    has_neurons |= record.trace.neurons.has_value();
    table.add(record, from.name(), place.line);
  });
  table.finish();
  if (file) file->commit();
  if (table.lines() == 0 && (has_grids || has_neurons)) {
    spdlog::warn("the table is empty: {}", !has_neurons ? "no record has neurons; --what cells writes the grids"
                                           : !has_grids ? "no record has grids; --what neurons writes the neurons"
                                                        : "no record has sets; --what neurons writes the neurons");
  }
  spdlog::info("{}, {}", words_of_counts(counts), counted(table.lines(), "line"));
  return kDone;
}

}  // namespace

int run_export(const ExportOptions& options, const std::stop_token& stop) {
  check_export(options);
  return export_csv(options, stop);
}

}  // namespace rometrace::cli

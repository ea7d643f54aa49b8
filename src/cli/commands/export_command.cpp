#include "cli/commands/export_command.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "cli/exit_status.hpp"
#include "cli/files/file_system.hpp"
#include "cli/files/output_file.hpp"
#include "cli/progress_bar.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/case_files.hpp"
#include "rometrace/report/record_reader.hpp"
#include "rometrace/report/result_file.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/count_text.hpp"

namespace rometrace::cli {

namespace fs = std::filesystem;

namespace {

void check_names(const ExportOptions& options) {
  const auto& files = options.files;
  for (auto file = files.begin(); file != files.end(); ++file) {
    if (std::any_of(files.begin(), file, [&](const auto& other) { return same_file(*file, other); })) {
      throw Error(label_of(*file) + ": the same file twice; name each file once");
    }
    check_not_output(*file, options.output);
  }
}

/// What became of the records.
struct RecordCounts {
  std::int64_t records = 0;
  std::int64_t skipped = 0;
  std::int64_t failed = 0;
};

/// "12 records (1 skipped, 2 failed)".
std::string words_of_counts(const RecordCounts& counts) {
  std::string left_out;
  if (counts.skipped > 0) left_out = std::to_string(counts.skipped) + " skipped";
  if (counts.failed > 0) left_out += (left_out.empty() ? "" : ", ") + std::to_string(counts.failed) + " failed";
  return count_of(counts.records, "record") + (left_out.empty() ? "" : " (" + left_out + ")");
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
  spdlog::info("{}, {}", words_of_counts(counts), count_of(table.lines(), "line"));
  return kDone;
}

/// The folder of the reference's case files.
class CaseFolder {
 public:
  /// Throws Error: no folder, or one that has case files where they may not be replaced.
  CaseFolder(const std::string& output, bool force) : folder_(fs::path(output) / "cases") {
    std::error_code error;
    for (const auto& folder : {fs::path(output), folder_}) {
      if (fs::exists(folder, error) && !fs::is_directory(folder, error)) {
        throw Error(shown(folder) + ": is no folder; expected one for case files, or a new name");
      }
    }
    if (force || !fs::exists(folder_, error)) return;
    for (fs::directory_iterator file(folder_, error), end; !error && file != end; file.increment(error)) {
      const auto name = file->path().filename().native();
      if (!name.starts_with("knowledge_") || !name.ends_with(".npz")) continue;
      throw Error(shown(folder_) + ": has case files, such as " + shown(name) +
                  "; name another folder with -o, or let files of the same names be replaced with --force");
    }
    if (error) throw Error(shown(folder_) + ": cannot be read: " + system_message(error.value()));
  }

  void write(const CaseFile& file, const std::string& where, const std::stop_token& stop) {
    const auto [place, is_new] = written_.emplace(file.name, where);
    if (!is_new) {
      throw Error(where + ": another fact for " + file.name + ", which is of " + place->second +
                  "; expected each id once; export the files to folders of their own");
    }
    if (written_.size() == 1) make();
    OutputFile output(folder_ / file.name);
    output.write(file.bytes, stop);
    output.commit();
    ++count_;
  }

  std::int64_t count() const { return count_; }
  const fs::path& path() const { return folder_; }

 private:
  void make() const {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) throw Error(shown(folder_) + ": " + writing_advice(error.value(), folder_));
  }

  fs::path folder_;
  std::map<std::string, std::string> written_;  // by name, where the record stands
  std::int64_t count_ = 0;
};

/// "noising (3 records), failed (1 record)"; empty for none.
std::string words_of_left_out(const std::map<std::string, std::int64_t>& left_out) {
  std::string text;
  for (const auto& [reason, count] : left_out) {
    text += (text.empty() ? "" : ", ") + reason + " (" + count_of(count, "record") + ")";
  }
  return text;
}

int export_npz(const ExportOptions& options, const std::stop_token& stop) {
  CaseFolder folder(options.output.value(), options.force);
  std::map<std::string, std::int64_t> left_out;
  std::int64_t without_id = 0;
  try {
    const auto counts = for_each_record(options, stop, [&](const auto& record, const auto& from, const auto& place) {
      const bool has_id = record.fact && !record.fact->id.empty();
      const auto id = has_id ? record.fact->id : std::to_string(without_id++);
      const auto cases = [&] {
        try {
          return case_files(record, id, from.settings_of(place));
        } catch (const Error& error) {
          throw Error(place.where + ": " + error.what());
        }
      }();
      if (!cases.left_out.empty()) ++left_out[cases.left_out];
      for (const auto& file : cases.files) folder.write(file, place.where, stop);
    });
    if (!left_out.empty()) spdlog::warn("left out: {}", words_of_left_out(left_out));
    spdlog::info("{}, {} in {}", words_of_counts(counts), count_of(folder.count(), "file"), shown(folder.path()));
  } catch (const Interrupted&) {
    if (folder.count() == 0) throw;
    spdlog::error("interrupted; {} in {} so far", count_of(folder.count(), "file"), shown(folder.path()));
    return kInterrupted;
  }
  return kDone;
}

}  // namespace

int run_export(const ExportOptions& options, const std::stop_token& stop) {
  check_names(options);
  return options.format == ExportOptions::Format::kNpz ? export_npz(options, stop) : export_csv(options, stop);
}

}  // namespace rometrace::cli

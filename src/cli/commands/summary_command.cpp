#include "cli/commands/summary_command.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "cli/exit_status.hpp"
#include "cli/files/file_system.hpp"
#include "cli/files/report_output.hpp"
#include "cli/progress_bar.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/edit_summary_json.hpp"
#include "rometrace/report/edit_summary_text.hpp"
#include "rometrace/report/probe_json.hpp"
#include "rometrace/report/probe_text.hpp"
#include "rometrace/report/summary_json.hpp"
#include "rometrace/report/summary_text.hpp"
#include "rometrace/summary/edit_summary.hpp"
#include "rometrace/summary/probe_summary.hpp"
#include "rometrace/summary/summary.hpp"
#include "rometrace/summary/summary_reader.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

using Json = nlohmann::ordered_json;

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

bool is_edit(const SummaryLine& line) {
  return line.type == SummaryLine::Type::kEdit ||
         (line.type == SummaryLine::Type::kHeader && line.json.contains("command") && line.json["command"] == "edit");
}

/// Refuses options that do nothing with a probe's results.
void refuse_for_probes(const SummaryOptions& options) {
  const char* name = options.by_relation       ? "--by"
                     : options.bootstrap_given ? "--bootstrap"
                     : options.seed_given      ? "--seed"
                                               : nullptr;
  if (name == nullptr) return;
  throw Error(std::string(name) +
              ": has no effect here; expected results of traces: those of --probe are always shown " +
              "by relation, with intervals that need no bootstrap");
}

/// What the files were averaged to: of traces, of probes, or of edits.
struct Averages {
  Json json;
  std::vector<std::string> warnings;
  std::function<std::string(const TerminalStyle&)> render;
};

/// Gives every line of the files to `take`, and each file's reader to `end_file`.
void read_lines(const SummaryOptions& options, const std::stop_token& stop,
                const std::function<void(const SummaryLine&)>& take,
                const std::function<void(const SummaryReader&)>& end_file) {
  ProgressBar bar(options.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  const auto progress = bar.callback();
  const auto total = size_of(options.files);
  std::uint64_t read = 0;
  for (const auto& file : options.files) {
    SummaryReader reader(file, stop);
    SummaryLine line;
    while (reader.next(line)) {
      if (stop.stop_requested()) throw Interrupted();
      take(line);
      if (progress && total > 0) {
        const auto done = std::min(total, read + reader.bytes_read());
        progress(static_cast<std::int64_t>(done), static_cast<std::int64_t>(total));
      }
    }
    end_file(reader);
    read += reader.size();
  }
}

/// The first line decides whether it is a study of traces, probes or edits; the other kinds are refused from there on.
Averages average(const SummaryOptions& options, const std::stop_token& stop) {
  Summary traces({options.by_relation, options.bootstrap, options.seed});
  ProbeSummary probes;
  std::optional<EditSummary> edits;
  std::optional<bool> probe;
  Averages averages;
  read_lines(
      options, stop,
      [&](const SummaryLine& line) {
        if (!probe && !edits && is_edit(line))
          edits.emplace(SummaryConfig{options.by_relation, options.bootstrap, options.seed});
        if (edits) return edits->add(line);
        if (!probe) {
          probe = is_probe(line);
          if (*probe) refuse_for_probes(options);
        }
        if (is_probe(line) != *probe) {
          const std::string here = *probe ? "a trace" : "a probe", before = *probe ? "a probe" : "a trace";
          throw Error(line.where + ": results of " + here + " among those of " + before + "; summarise them apart");
        }
        *probe ? probes.add(line.json, line.where) : traces.add(line);
      },
      [&](const SummaryReader& reader) {
        if (edits) return edits->end_file(reader);
        if (probe.value_or(false)) {
          probes.end_file(reader.label(), reader.torn());
        } else {
          traces.end_file(reader);
        }
      });
  if (edits) {
    auto result = edits->result();
    averages.json = to_json(result);
    averages.warnings = result.warnings;
    averages.render = [result = std::move(result)](const TerminalStyle& style) {
      return render_edit_summary(result, style);
    };
  } else if (probe.value_or(false)) {
    averages.json = to_json(probes, options.files);
    averages.warnings = probes.warnings();
    averages.render = [probes = std::make_shared<ProbeSummary>(std::move(probes))](const TerminalStyle& style) {
      return render_probe_summary(*probes, style);
    };
  } else {
    auto result = traces.result();
    averages.json = to_json(result);
    averages.warnings = result.warnings;
    averages.render = [result = std::move(result)](const TerminalStyle& style) {
      return render_summary(result, style);
    };
  }
  return averages;
}

}  // namespace

int run_summary(const SummaryOptions& options, const std::stop_token& stop) {
  check_files(options.files);
  for (const auto& input : options.files) check_not_output(input, options.output);
  ReportOutput output(options.output, options.json);

  const auto averages = average(options, stop);
  for (const auto& warning : averages.warnings) spdlog::warn("{}", warning);
  output.write(averages.json, averages.render, stop);
  return kDone;
}

}  // namespace rometrace::cli

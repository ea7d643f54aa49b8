#include "cli/commands/show_command.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "cli/machine/terminal_info.hpp"
#include "report/display_text.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/record_reader.hpp"
#include "rometrace/report/records_text.hpp"
#include "rometrace/report/result_file.hpp"
#include "rometrace/report/summary_result_reader.hpp"
#include "rometrace/report/summary_text.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

constexpr int kNoBound = 100'000;

/// A record drawn, or why there is nothing to draw.
std::string drawn(const TraceRecord& record, const TerminalStyle& style) {
  if (record.verdict.status == Status::kTraced) return render_heat_maps(record, style);
  const auto row = record_row(record);
  return wrap(display(row.reason, {.unicode = style.unicode}).text, std::max(kNarrowestText, style.columns),
              kSentenceIndent);
}

std::string show_ids(ResultFile& file, const std::vector<std::string>& asked_ids, const TerminalStyle& style) {
  std::vector<std::string> ids;  // each once
  for (const auto& id : asked_ids) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  std::vector<std::string> texts(ids.size());
  while (const auto place = file.next()) {
    const auto record = read_trace_record(place->json, place->where);
    if (!record.fact || record.fact->id.empty()) continue;
    const auto& id = record.fact->id;
    const auto asked = std::find(ids.begin(), ids.end(), id);
    if (asked == ids.end()) continue;
    auto& text = texts[static_cast<std::size_t>(asked - ids.begin())];
    if (!text.empty()) text += "\n";
    if (ids.size() > 1)
      text += display_head(id, std::max(kNarrowestText, style.columns), {.unicode = style.unicode}).text + "\n";
    text += drawn(record, style);
  }
  std::string result;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (texts[i].empty()) throw Error(file.without_id(ids[i]));
    result += (result.empty() ? "" : "\n") + texts[i];
  }
  return result;
}

std::string show_all(ResultFile& file, const TerminalStyle& style) {
  std::optional<TraceRecord> only;
  std::vector<RecordRow> rows;
  while (const auto place = file.next()) {
    auto record = read_trace_record(place->json, place->where);
    rows.push_back(record_row(record));
    only.reset();
    if (rows.size() == 1) only = std::move(record);
  }
  if (only) return drawn(*only, style);
  if (rows.empty()) return "no records\n";
  auto of_table = style;
  if (!is_terminal(STDOUT_FILENO)) of_table.columns = kNoBound;  // a pipe's reader looks for whole ids
  return render_records(rows, of_table);
}

}  // namespace

int run_show(const ShowOptions& options, const std::stop_token& stop) {
  const auto style = terminal_style(STDOUT_FILENO);
  ResultFile file(options.file, stop);
  std::string text;
  if (file.schema() == "rometrace/summary/1") {
    if (!options.ids.empty()) {
      throw Error("--id: a summary has no facts of its own; name the results that it was made of, or leave it out");
    }
    text = render_summary(read_summary_result(file.first(), file.label()), style);
  } else {
    text = options.ids.empty() ? show_all(file, style) : show_ids(file, options.ids, style);
  }
  if (!file.torn().empty()) spdlog::warn("{}", file.torn());
  write_stdout(text, stop);
  return kDone;
}

}  // namespace rometrace::cli

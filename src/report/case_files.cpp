#include "rometrace/report/case_files.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "report/finding.hpp"
#include "report/npz_writer.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/strip.hpp"

namespace rometrace {
namespace {

constexpr std::array kCaseKinds = {Kind::kState, Kind::kMlp, Kind::kAttn};

/// What the kind is called there.
std::string case_kind(Kind kind) {
  return kind == Kind::kState ? "" : std::string(to_string(kind));
}

/// Whether the answer that is followed is the model's own, and the fact's where it has one.
bool is_correct(const TraceRecord& record) {
  const auto& trace = record.trace;
  if (trace.answer_id() != trace.prediction_id) return false;
  const bool has_object = record.fact && record.fact->object;
  return !has_object || strip(*record.fact->object) == strip(record.texts.answer);
}

bool has_all_positions(const CausalGrid& grid, std::int64_t tokens) {
  if (static_cast<std::int64_t>(grid.positions.size()) != tokens) return false;
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (grid.positions[static_cast<std::size_t>(t)] != t) return false;
  }
  return true;
}

const nlohmann::ordered_json* setting(const nlohmann::ordered_json* settings, const char* name) {
  if (settings == nullptr || !settings->is_object()) return nullptr;
  const auto found = settings->find(name);
  return found == settings->end() ? nullptr : &*found;
}

bool is_asked_for(Kind kind, const nlohmann::ordered_json* settings) {
  const auto* kinds = setting(settings, "kinds");
  if (kinds == nullptr || !kinds->is_array()) return true;
  return std::find(kinds->begin(), kinds->end(), to_string(kind)) != kinds->end();
}

std::string bytes_of_traced(const TraceRecord& record, const CausalGrid& grid, std::int64_t window) {
  const auto& trace = record.trace;
  const std::vector<float> scores(grid.scores.begin(), grid.scores.end());
  const std::vector<std::int64_t> ids(record.prompt.token_ids.begin(), record.prompt.token_ids.end());
  const std::array high = {static_cast<float>(trace.high_score)};
  const std::array low = {trace.low_score};
  const std::array subject = {static_cast<std::int64_t>(record.prompt.subject_range.begin),
                              static_cast<std::int64_t>(record.prompt.subject_range.end)};
  NpzWriter npz;
  npz.add("scores", scores, {trace.tokens, trace.layers});
  npz.add("low_score", low);
  npz.add("high_score", high);
  npz.add("input_ids", ids, {trace.tokens});
  npz.add_texts("input_tokens", record.texts.prompt, {trace.tokens});
  npz.add("subject_range", subject, {2});
  npz.add_texts("answer", std::array{record.texts.answer});
  npz.add("window", std::array{window});
  npz.add_flag("correct_prediction", is_correct(record));
  npz.add_texts("kind", std::array{case_kind(grid.kind)});
  return npz.bytes();
}

std::string bytes_of_skipped() {
  NpzWriter npz;
  npz.add_flag("correct_prediction", false);
  return npz.bytes();
}

CaseFiles files_of_skipped(const TraceRecord& record, std::string_view id, const nlohmann::ordered_json* settings) {
  const auto cause = record.verdict.cause;
  if (cause != Cause::kOtherAnswer && cause != Cause::kFirstToken) {
    return {{}, "skipped, " + std::string(cause ? to_string(*cause) : "without a cause")};
  }
  const auto* positions = setting(settings, "positions");
  if (positions != nullptr && *positions != "all") return {{}, "some positions alone"};
  CaseFiles found;
  for (const auto kind : kCaseKinds) {
    if (is_asked_for(kind, settings)) found.files.push_back({case_name(id, kind), bytes_of_skipped()});
  }
  if (found.files.empty()) found.left_out = "neither state, mlp nor attn";
  return found;
}

}  // namespace

CaseFiles case_files(const TraceRecord& record, std::string_view id, const nlohmann::ordered_json* settings) {
  if (record.verdict.status == Status::kFailed) return {{}, "failed"};
  if (record.options.direction == Direction::kNoising) return {{}, "noising"};
  if (is_approximate(record.run)) return {{}, "approximate"};
  if (record.verdict.status == Status::kSkipped) return files_of_skipped(record, id, settings);
  const auto* asked_window = setting(settings, "window");
  const auto window = asked_window != nullptr && asked_window->is_number_integer() ? asked_window->get<std::int64_t>()
                                                                                   : record.options.window;
  CaseFiles found;
  found.left_out = "neither state, mlp nor attn";
  for (const auto kind : kCaseKinds) {
    const auto& grids = record.trace.grids;
    const auto grid = std::find_if(grids.begin(), grids.end(), [&](const auto& each) { return each.kind == kind; });
    if (grid == grids.end()) continue;
    if (!has_all_positions(*grid, record.trace.tokens)) return {{}, "some positions alone"};
    found.files.push_back({case_name(id, kind), bytes_of_traced(record, *grid, window)});
    found.left_out.clear();
  }
  return found;
}

std::string case_name(std::string_view id, Kind kind) {
  constexpr std::size_t kLongestName = 255;  // bytes, of Linux's file systems
  constexpr std::string_view kKept = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";
  constexpr std::string_view kHexDigits = "0123456789ABCDEF";
  const bool ends_as_kind = id.ends_with("_mlp") || id.ends_with("_attn");
  const auto last_line = ends_as_kind ? id.rfind('_') : std::string_view::npos;
  std::string name = "knowledge_";
  for (std::size_t i = 0; i < id.size(); ++i) {
    if (kKept.find(id[i]) != std::string_view::npos && i != last_line) {
      name += id[i];
      continue;
    }
    const auto byte = static_cast<unsigned char>(id[i]);
    name += '%';
    name += kHexDigits[byte >> 4U];
    name += kHexDigits[byte & 0xFU];
  }
  if (kind != Kind::kState) name += "_" + case_kind(kind);
  name += ".npz";
  if (name.size() > kLongestName) {
    throw Error("the id " + in_quotes(id, 60) + " makes a file name of " + std::to_string(name.size()) +
                " bytes; expected at most " + std::to_string(kLongestName) + "; give the fact a shorter id");
  }
  return name;
}

}  // namespace rometrace

#include "rometrace/report/repeat_json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "report/display_text.hpp"
#include "report/json_parts.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"
#include "text/count_text.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kListed = 100;

Json difference_json(const NumberDifference& difference) {
  return {{"path", difference.path}, {"was", number(difference.was)}, {"is", number(difference.is)}};
}

Json record_json(const RepeatedRecord& record) {
  const auto& comparison = record.comparison;
  Json json = {{"line", record.line}};
  if (record.fact) json["fact"] = to_json(*record.fact);
  json["prompt"] = to_valid_utf8(record.prompt);
  json["status"] = to_string(record.status);
  json["repeated"] = !record.not_repeated;
  if (record.not_repeated) {
    json["reason"] = to_valid_utf8(*record.not_repeated);
    return json;
  }
  json["equal"] = comparison.equal();
  json["numbers"] = comparison.numbers;
  json["largest"] = comparison.largest ? difference_json(*comparison.largest) : Json(nullptr);
  json["beyond"] = comparison.beyond.size();
  json["cells"] = Json::array();
  for (std::size_t i = 0; i < std::min(kListed, comparison.beyond.size()); ++i) {
    json["cells"].push_back(difference_json(comparison.beyond[i]));
  }
  json["others"] = Json::array();
  for (const auto& other : comparison.others) json["others"].push_back(to_valid_utf8(other));
  json["seconds"] = number(record.seconds);
  return json;
}

std::string digits(double value, int precision) {
  if (std::isnan(value)) return "no number";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::general, precision).ptr;
  return {text, end};
}

std::string name_of(const RepeatedRecord& record) {
  return "line " + std::to_string(record.line) +
         (record.fact && !record.fact->id.empty() ? " (" + one_line(record.fact->id, 60) + ")" : "");
}

std::string words_of(const NumberDifference& difference) {
  constexpr int kDigits = 9;
  return difference.path + " was " + digits(difference.was, kDigits) + ", is " + digits(difference.is, kDigits);
}

}  // namespace

std::int64_t RepeatReport::equal() const {
  return std::count_if(records.begin(), records.end(),
                       [](const auto& record) { return !record.not_repeated && record.comparison.equal(); });
}

std::int64_t RepeatReport::different() const {
  return std::ssize(records) - equal() - not_repeated();
}

std::int64_t RepeatReport::not_repeated() const {
  return std::count_if(records.begin(), records.end(),
                       [](const auto& record) { return record.not_repeated.has_value(); });
}

std::int64_t RepeatReport::identical() const {
  return std::count_if(records.begin(), records.end(), [](const auto& record) {
    return !record.not_repeated && record.comparison.equal() && !record.comparison.largest;
  });
}

const RepeatedRecord* RepeatReport::largest() const {
  const RepeatedRecord* found = nullptr;
  for (const auto& record : records) {
    const auto& largest = record.comparison.largest;
    if (largest && (found == nullptr || largest->excess > found->comparison.largest->excess)) found = &record;
  }
  return found;
}

Json to_json(const RepeatReport& report) {
  Json json = {{"schema", "rometrace/repeat/1"}, {"rometrace", kVersion}};
  json["file"] = to_valid_utf8(report.file);
  json["written_by"] = to_valid_utf8(report.written_by);
  json["model"] = to_json(report.model);
  json["run"] = {{"device", report.run.device},
                 {"dtype", report.run.dtype},
                 {"threads", report.run.threads},
                 {"seconds", number(report.run.seconds)}};
  json["rounding"] = {{"relative", report.rounding.relative}, {"absolute", report.rounding.absolute}};
  json["facts_checked"] = report.facts_checked;
  json["records"] = report.records.size();
  json["equal"] = report.equal();
  json["identical"] = report.identical();
  json["different"] = report.different();
  json["not_repeated"] = report.not_repeated();
  json["largest"] = nullptr;
  if (const auto* largest = report.largest()) {
    json["largest"] = {{"line", largest->line}};
    json["largest"].update(difference_json(*largest->comparison.largest));
  }
  json["results"] = Json::array();
  for (const auto& record : report.records) json["results"].push_back(record_json(record));
  return json;
}

std::string render_repeat(const RepeatReport& report, const TerminalStyle& style) {
  constexpr int kNarrowest = 40;
  constexpr std::size_t kRecords = 20, kCells = 3;
  const int columns = std::max(kNarrowest, style.columns);
  const auto line = [&](const std::string& text) {
    return wrap(display(text, {.unicode = style.unicode}).text, columns);
  };
  const auto repeated = report.equal() + report.different();
  std::string text =
      line(std::to_string(report.equal()) + " of " + count_of(repeated, "record") + " " +
           (report.equal() == 1 ? "is" : "are") + " equal within the rounding of " + report.run.dtype + " (" +
           digits(report.rounding.relative, 3) + " of a number, and " + digits(report.rounding.absolute, 3) + "), " +
           std::to_string(report.identical()) + " to the last bit.");
  if (const auto* largest = report.largest()) {
    text += line("Largest difference: " + name_of(*largest) + ", " + words_of(*largest->comparison.largest) + ".");
  }
  if (report.not_repeated() > 0) {
    const auto first = std::find_if(report.records.begin(), report.records.end(),
                                    [](const auto& record) { return record.not_repeated.has_value(); });
    text += line(count_of(report.not_repeated(), "record") + " could not be repeated; " + name_of(*first) + ": " +
                 *first->not_repeated + ".");
  }
  std::size_t told = 0;
  for (const auto& record : report.records) {
    if (record.not_repeated || record.comparison.equal()) continue;
    if (told++ == kRecords) {
      text +=
          line("... and " + count_of(report.different() - static_cast<std::int64_t>(kRecords), "other record") + ".");
      break;
    }
    const auto& comparison = record.comparison;
    std::string what = name_of(record) + " differs:";
    for (const auto& other : comparison.others) what += " " + other + ";";
    if (!comparison.beyond.empty()) {
      what += " " + std::to_string(comparison.beyond.size()) + " of " + count_of(comparison.numbers, "number");
      for (std::size_t i = 0; i < std::min(kCells, comparison.beyond.size()); ++i) {
        what += (i == 0 ? ": " : "; ") + words_of(comparison.beyond[i]);
      }
      if (comparison.beyond.size() > kCells) what += "; ...";
    }
    text += line(what);
  }
  return text;
}

}  // namespace rometrace

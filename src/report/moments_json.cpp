#include "rometrace/report/moments_json.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "report/display_text.hpp"
#include "report/json_parts.hpp"
#include "report/table_text.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

double tokens_by_width(const MomentsRecord& record, const MomentSummary& layer) {
  return static_cast<double>(record.tokens) / static_cast<double>(layer.width);
}

Json layer_json(const MomentsRecord& record, const MomentSummary& layer) {
  return {{"layer", layer.layer},
          {"width", layer.width},
          {"tokens_by_width", number(tokens_by_width(record, layer))},
          {"trace", number(layer.trace)},
          {"frobenius", number(layer.frobenius)},
          {"ridge", number(layer.ridge)},
          {"condition", layer.condition ? number(*layer.condition) : Json(nullptr)},
          {"cached", layer.cached},
          {"file", layer.file}};
}

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

std::string moment_row(const std::string& layer, const std::string& width, const std::string& trace,
                       const std::string& frobenius, const std::string& ridge, const std::string& condition) {
  return trimmed(right(layer, 5) + right(width, 7) + right(trace, 12) + right(frobenius, 12) + right(ridge, 12) +
                 right(condition, 12));
}

}  // namespace

Json to_json(const MomentsRecord& record) {
  Json json = {{"schema", "rometrace/moments/1"}, {"rometrace", kVersion}, {"model", to_json(record.model)}};
  json["run"] = {{"device", record.run.device},
                 {"dtype", record.run.dtype},
                 {"threads", record.run.threads},
                 {"seconds", number(record.run.seconds)}};
  json["text"] = {
      {"files", record.text}, {"sha256", record.text_sha256},  {"texts", record.texts}, {"tokens", record.tokens},
      {"cut", record.cut},    {"cut_texts", record.cut_texts}, {"whole", record.whole}};
  json["layers"] = Json::array();
  for (const auto& layer : record.layers) json["layers"].push_back(layer_json(record, layer));
  json["warnings"] = record.warnings;
  return json;
}

std::string render_moments(const MomentsRecord& record, const TerminalStyle& style) {
  const auto columns = std::max(kNarrowestText, style.columns);
  const auto shown = [&](std::string_view text) { return display(text, {.unicode = style.unicode}).text; };
  const auto sentence = [&](const std::string& text) { return wrap(text, columns, kSentenceIndent); };
  auto text =
      sentence("Second moment of MLP keys, model " + shown(record.model.name) + ", " + std::to_string(record.texts) +
               " texts of " + shown(record.text) + ", " + std::to_string(record.tokens) + " tokens");
  text += "\n" + moment_row("layer", "width", "trace", "norm", "ridge", "condition");
  for (const auto& layer : record.layers) {
    text += moment_row(std::to_string(layer.layer), std::to_string(layer.width), number_text(layer.trace),
                       number_text(layer.frobenius), number_text(layer.ridge),
                       layer.condition ? number_text(*layer.condition) : "singular");
  }
  text += "\n";
  for (const auto& warning : record.warnings) text += sentence("Warning: " + shown(warning));
  std::string last;
  for (const auto& layer : record.layers) {
    if (layer.file != last) text += sentence("File: " + shown(layer.file));
    last = layer.file;
  }
  return text;
}

}  // namespace rometrace

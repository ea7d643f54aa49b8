#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace rometrace::testing {

using Json = nlohmann::json;

/// A traced line of `tokens` tokens and two layers, state and mlp; a cell's score is low + 0.01 (token + 1) (layer +
/// 1).
inline Json traced_line(std::int64_t record, std::size_t tokens = 5, std::size_t begin = 1, std::size_t end = 3) {
  const double low = 0.125;
  Json grid = Json::array();
  for (std::size_t t = 0; t < tokens; ++t) {
    Json row = Json::array();
    for (std::size_t layer = 0; layer < 2; ++layer) {
      row.push_back(t < begin ? low : low + 0.01 * static_cast<double>((t + 1) * (layer + 1)));
    }
    grid.push_back(row);
  }
  return {{"schema", "rometrace/trace/1"},
          {"status", "traced"},
          {"fact", {{"record", record}, {"order", record}, {"relation", "P1"}}},
          {"model", {{"name", "tiny"}, {"layers", 2}, {"width", 8}, {"heads", 2}, {"weights_sha256", "00ff"}}},
          {"run",
           {{"device", "cpu"},
            {"dtype", "float32"},
            {"threads", 1},
            {"engine", "sweep"},
            {"seed", 1},
            {"samples", 10},
            {"noise", {{"rule", "s3"}, {"sigma", 0.25}, {"replace", false}}},
            {"seconds", 0.5}}},
          {"tokens", std::vector<std::string>(tokens, "x")},
          {"token_bytes", std::vector<std::string>(tokens, "78")},
          {"subject_range", {begin, end}},
          {"high_score", 0.75},
          {"low_score", low},
          {"total_effect", 0.625},
          {"grids",
           {{"state", {{"window", 1}, {"scores", grid}, {"indirect_effect", grid}, {"standard_error", grid}}},
            {"mlp", {{"window", 10}, {"scores", grid}, {"indirect_effect", grid}, {"standard_error", nullptr}}}}}};
}

inline Json untraced_line(std::int64_t record, const std::string& status, const std::string& cause) {
  return {{"schema", "rometrace/trace/1"},
          {"status", status},
          {"cause", cause},
          {"reason", "because"},
          {"fact", {{"record", record}, {"order", record}}}};
}

/// traced_line() with only the rows of `positions`, and what else can be traced: severed paths that take 0.25 of a
/// score, 0.5 the attention; two heads whose scores are the state's and half of it; a knockout that takes a quarter of
/// the answer at layer 0 and half at layer 1.
inline Json whole_line(std::int64_t record, const std::vector<std::size_t>& positions, std::size_t tokens = 5,
                       std::size_t begin = 1, std::size_t end = 3) {
  auto line = traced_line(record, tokens, begin, end);
  const auto all = line["grids"]["state"]["scores"];
  Json state = Json::array(), head = Json::array(), mlp = Json::array(), attn = Json::array();
  for (const auto position : positions) {
    Json heads = Json::array(), less = Json::array(), half = Json::array();
    for (const double score : all[position]) {
      heads.push_back({score, score / 2});
      less.push_back(0.75 * score);
      half.push_back(0.5 * score);
    }
    state.push_back(all[position]);
    head.push_back(heads);
    mlp.push_back(less);
    attn.push_back(half);
  }
  const auto grid = [&](std::int64_t window, const Json& scores) -> Json {
    return {{"window", window}, {"positions", positions}, {"scores", scores}, {"indirect_effect", scores}};
  };
  line["grids"] = {{"state_attn_severed", grid(1, attn)},
                   {"state_mlp_severed", grid(1, mlp)},
                   {"head", grid(1, head)},
                   {"state", grid(1, state)}};
  line["grids"]["head"]["heads"] = 2;
  const Json group = {{"positions", {begin}}, {"scores", {0.5625, 0.375}}, {"relative_change", {-0.25, -0.5}}};
  line["knockout"] = {{"window", 9}, {"groups", {{"subject", group}, {"last", group}}}};
  line["measures"] = {{"rank", {{"high", 1}, {"grids", {{"state", {{"values", state}}}}}}}};
  return line;
}

/// A line of neurons alone, at the last subject token (2): `neurons` of layer 0 with an effect each, and sets of 1, 2
/// and all 8 with 0.1, 0.2 and 0.4 times the record.
inline Json neuron_line(std::int64_t record, const std::string& relation, const std::string& subject,
                        const std::vector<std::pair<std::int64_t, double>>& neurons, const Json& half) {
  auto line = traced_line(record);
  line["grids"] = Json::object();
  line["fact"]["relation"] = relation;
  line["subject"] = subject;
  Json effects = Json::array(), sets = Json::array(), controls = Json::array();
  for (const auto& [neuron, effect] : neurons) {
    effects.push_back({{"layer", 0},
                       {"position", 2},
                       {"neuron", neuron},
                       {"indirect_effect", effect},
                       {"promotes", {{{"token", " t" + std::to_string(neuron)}}}}});
  }
  for (const auto& [size, effect] : {std::pair(1, 0.1), std::pair(2, 0.2), std::pair(8, 0.4)}) {
    const double mine = effect * static_cast<double>(record);
    sets.push_back({{"position", 2}, {"neurons", size}, {"indirect_effect", mine}});
    controls.push_back({{"order", "change"}, {"position", 2}, {"neurons", size}, {"indirect_effect", mine / 2}});
    controls.push_back({{"order", "random"}, {"position", 2}, {"neurons", size}, {"indirect_effect", mine / 4}});
  }
  line["neurons"] = {{"positions", {2}},        {"layers", {0, 2}},
                     {"ranked_by", "gradient"}, {"candidates", 8},
                     {"effects", effects},      {"sets", sets},
                     {"controls", controls},    {"half", {{{"position", 2}, {"candidates", 8}, {"neurons", half}}}}};
  return line;
}

/// A batch's first line: `selected` of as many records.
inline Json header_line(std::int64_t selected, const std::string& facts_sha256 = "abc") {
  return {{"schema", "rometrace/batch/1"},
          {"command", "trace"},
          {"model", {{"name", "tiny"}, {"layers", 2}, {"width", 8}, {"heads", 2}, {"weights_sha256", "00ff"}}},
          {"run",
           {{"device", "cpu"},
            {"dtype", "float32"},
            {"tf32", false},
            {"engine", "sweep"},
            {"seed", 1},
            {"samples", 10},
            {"noise", {{"rule", "s3"}, {"sigma", 0.25}, {"replace", false}}}}},
          {"kinds", {"state", "mlp"}},
          {"window", 10},
          {"target", "prediction"},
          {"all", false},
          {"special_tokens", false},
          {"only", nullptr},
          {"facts",
           {{"files", {{{"name", "facts.json"}, {"sha256", facts_sha256}}}},
            {"records", selected},
            {"selection", {{"limit", nullptr}}},
            {"selected", selected}}},
          {"shard", nullptr}};
}

/// The lines as a file's text.
inline std::string as_text(const std::vector<Json>& lines) {
  std::string text;
  for (const auto& line : lines) text += line.dump() + "\n";
  return text;
}

}  // namespace rometrace::testing

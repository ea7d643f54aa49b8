#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/facts/shard.hpp"

namespace rometrace::testing {

/// The header of a batch over `selected` facts, as a batch on the demo model writes it.
inline nlohmann::ordered_json batch_header(std::int64_t selected) {
  using Json = nlohmann::ordered_json;
  return {{"schema", "rometrace/batch/1"},
          {"rometrace", "0.1.0"},
          {"command", "trace"},
          {"model", {{"name", "rometrace-demo"}, {"layers", 8}, {"weights_sha256", std::string(64, 'a')}}},
          {"run",
           {{"device", "cpu"},
            {"engine", "sweep"},
            {"seed", 1},
            {"samples", 10},
            {"noise", {{"rule", "s3"}, {"sigma", 0.25730303674936295}, {"replace", false}}}}},
          {"kinds", {"state", "mlp"}},
          {"window", 10},
          {"only", nullptr},
          {"facts",
           {{"files", Json::array({{{"name", "facts.json"}, {"sha256", std::string(64, 'b')}}})},
            {"records", selected},
            {"selected", selected}}},
          {"shard", nullptr}};
}

/// The same of a shard.
inline nlohmann::ordered_json batch_header(std::int64_t selected, const Shard& shard) {
  auto header = batch_header(selected);
  header["shard"] = {{"index", shard.index}, {"count", shard.count}};
  return header;
}

/// The line of a fact, without its newline: some KB of numbers if it is traced.
inline std::string batch_line(std::int64_t order, const std::string& status = "traced") {
  nlohmann::ordered_json line = {{"schema", "rometrace/trace/1"}, {"rometrace", "0.1.0"}, {"status", status}};
  if (status != "traced") line["cause"] = "other_answer", line["reason"] = "the model's answer is \"é}\\\", not this";
  line["fact"] = {{"record", order + 100}, {"order", order}, {"id", "plays/" + std::to_string(order)}};
  line["run"] = {{"seconds", 0.25}};
  if (status == "traced") {
    auto rows = nlohmann::ordered_json::array();
    for (int i = 0; i < 100; ++i) rows.push_back({1.0 / (i + double(order)), 0.057559188454234496, i});
    line["grids"]["state"]["scores"] = rows;
  }
  return line.dump();
}

/// A batch's file of the facts of `shard` up to `last`.
inline std::string batch_file(std::int64_t selected, const Shard& shard, std::int64_t last) {
  std::string text = (shard == Shard() ? batch_header(selected) : batch_header(selected, shard)).dump() + "\n";
  for (std::int64_t order = 1; order <= last; ++order) {
    if (shard.holds(order)) text += batch_line(order, order % 3 == 0 ? "skipped" : "traced") + "\n";
  }
  return text;
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace rometrace::testing

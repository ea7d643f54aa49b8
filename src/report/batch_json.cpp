#include "rometrace/report/batch_json.hpp"

#include <nlohmann/json.hpp>
#include <string>

#include "report/neuron_json.hpp"
#include "rometrace/report/probe_json.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(const std::optional<std::int64_t>& number) {
  return number ? Json(*number) : Json(nullptr);
}

Json rule_json(const std::optional<KnownRule>& rule) {
  return rule ? to_json(*rule) : Json(nullptr);
}

}  // namespace

Json facts_json(std::span<const FactsSource> sources, const Selection& selection, std::int64_t selected) {
  Json files = Json::array();
  std::int64_t records = 0;
  for (const auto& source : sources) {
    files.push_back({{"name", to_valid_utf8(source.name)}, {"sha256", source.sha256}});
    records += source.records;
  }
  Json ids = nullptr;
  for (const auto& id : selection.ids) ids.push_back(to_valid_utf8(id));
  return {{"files", std::move(files)},
          {"records", records},
          {"selection",
           {{"ids", std::move(ids)},
            {"sample", or_null(selection.sample)},
            {"sample_seed", selection.sample ? Json(selection.sample_seed) : Json(nullptr)},
            {"limit", or_null(selection.limit)}}},
          {"selected", selected}};
}

Json shard_json(const std::optional<Shard>& shard) {
  return shard ? Json{{"index", shard->index}, {"count", shard->count}} : Json(nullptr);
}

Json to_json(const BatchRecord& batch) {
  const bool trace = batch.what == BatchRecord::What::kTrace;
  const auto& options = batch.options;
  Json run = to_json(batch.run, options.trace);
  run["device"] = batch.run.device_kind();  // ranks of one batch have a GPU each
  run.erase("threads");
  run.erase("seconds");
  Json json = {{"schema", "rometrace/batch/1"}, {"rometrace", kVersion}, {"command", trace ? "trace" : "probe"}};
  json["model"] = to_json(batch.model);
  if (trace) {
    run["tf32"] = batch.run.tf32;
    if (options.trace.precision) {
      run["precision"] = {{"asked", *options.trace.precision}, {"most_samples", options.trace.most_samples}};
    }
    json["run"] = std::move(run);
    add_settings(json, options.trace);
    json["target"] = to_string(options.follow);
    json["answer"] = to_string(options.answer);
    json["foil"] = options.foil ? Json(*options.foil) : Json(nullptr);
    json["all"] = options.on_other_answer == OnOtherAnswer::kTrace;
    json["only"] = batch.known_by ? Json{{"known_by", rule_json(batch.known_by)}} : Json(nullptr);
  } else {
    json["run"] = {{"device", run["device"]}, {"dtype", run["dtype"]}, {"tf32", batch.run.tf32}};
    json["known_by"] = rule_json(batch.known_by);
  }
  json["special_tokens"] = options.special_tokens == SpecialTokens::kParse;
  json["facts"] = facts_json(batch.sources, batch.selection, batch.selected);
  json["shard"] = shard_json(batch.shard);
  return json;
}

}  // namespace rometrace

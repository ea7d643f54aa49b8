#include "text/bpe_rules.hpp"

#include <nlohmann/json.hpp>
#include <optional>

#include "rometrace/error.hpp"
#include "rometrace/text/split_pattern.hpp"
#include "text/added_token_json.hpp"
#include "text/converted_rules.hpp"
#include "text/json_shown.hpp"
#include "text/rule_fields.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

BpeRules::Normalizer read_normalizer(const json& stage, const std::string& where) {
  if (stage.is_null()) return BpeRules::Normalizer::kNone;
  auto normalizer = BpeRules::Normalizer::kNone;
  for (const auto& [name, part] : stages_of(stage, "normalizer", "normalizers", where)) {
    if (!has_type(*part, "NFC")) refuse_field(where, quoted(name), *part, "null or type NFC");
    check_fields(*part, where, name + ".", {{"type", {}}});
    normalizer = BpeRules::Normalizer::kNfc;
  }
  return normalizer;
}

SplitRule read_split(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".", {{"type", {}}, {"pattern", {}}, {"behavior", {}}, {"invert", {}}});
  const json& pattern = member(stage, "pattern", where + ", " + name);
  const json regex = pattern.is_object() ? pattern.value("Regex", json()) : json();
  const json text = pattern.is_object() ? pattern.value("String", json()) : json();
  SplitRule split;
  if (regex.is_string()) {
    split.pattern = to_pcre2(regex.get<std::string>(), where + ", " + name);
  } else if (text.is_string() && !text.get_ref<const std::string&>().empty()) {
    split.pattern = literal_pattern(text.get<std::string>());
  } else {
    refuse_field(where, quoted(name + ".pattern"), pattern, R"({"Regex": "..."} or {"String": "..."})");
  }
  const json& behavior = member(stage, "behavior", where + ", " + name);
  const bool removes = behavior == "Removed";
  if (!removes && behavior != "Isolated") {
    refuse_field(where, quoted(name + ".behavior"), behavior, R"("Isolated" or "Removed")");
  }
  const bool inverted = read_flag(stage, "invert", where, name);
  if (removes) split.keep = inverted ? SplitRule::Keep::kMatches : SplitRule::Keep::kBetween;
  return split;
}

SplitRule read_digits(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".", {{"type", {}}, {"individual_digits", {}}});
  const bool individual = read_flag(stage, "individual_digits", where, name);
  return {to_pcre2(individual ? R"(\p{N})" : R"(\p{N}+)", where)};
}

void read_byte_level(const json& stage, const std::string& where, const std::string& name, BpeRules& rules) {
  check_fields(stage, where, name + ".",
               {{"type", {}}, {"add_prefix_space", {}}, {"trim_offsets", {}}, {"use_regex", {}}});
  if (read_flag(stage, "add_prefix_space", where, name)) {
    if (!rules.splits.empty())
      refuse_field(where, quoted(name + ".add_prefix_space"), true, "false after other stages");
    rules.first_space = FirstSpace::kOfEachStretch;
  }
  if (!stage.contains("use_regex") || read_flag(stage, "use_regex", where, name)) rules.splits.push_back(gpt2_split());
}

void read_pre_tokenizer(const json& stage, const std::string& where, BpeRules& rules) {
  const auto stages = stages_of(stage, "pre_tokenizer", "pretokenizers", where);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const auto& [name, part] = stages[i];
    const bool last = i + 1 == stages.size();
    if (last && has_type(*part, "ByteLevel")) {
      read_byte_level(*part, where, name, rules);
      return;
    }
    if (!last && has_type(*part, "Split")) {
      rules.splits.push_back(read_split(*part, where, name));
    } else if (!last && has_type(*part, "Digits")) {
      rules.splits.push_back(read_digits(*part, where, name));
    } else {
      refuse_field(where, quoted(name), *part, last ? "type ByteLevel" : "type Split or Digits");
    }
  }
  refuse_field(where, "\"pre_tokenizer\"", stage, "type ByteLevel");
}

void check_byte_level(const json& stage, const std::string& where, const std::string& name) {
  if (!has_type(stage, "ByteLevel")) refuse_field(where, quoted(name), stage, "type ByteLevel");
  // None of these has an effect here.
  check_fields(stage, where, name + ".",
               {{"type", {}}, {"add_prefix_space", {}}, {"trim_offsets", {}}, {"use_regex", {}}});
}

/// The ids that a template puts before the text. What it puts behind is left off.
std::vector<std::int32_t> ids_before_text(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".", {{"type", {}}, {"single", {}}, {"pair", {}}, {"special_tokens", {}}});
  const std::string place = where + ", " + name;
  const json& parts = member(stage, "single", place);
  const auto refuse = [&] {
    refuse_field(where, quoted(name + ".single"), parts, "a list of special tokens and one text, \"A\"");
  };
  if (!parts.is_array()) refuse();
  std::vector<std::int32_t> ids;
  for (const json& part : parts) {
    if (!part.is_object()) refuse();
    if (part.contains("Sequence")) {
      if (member(part["Sequence"], "id", place) != "A") refuse();
      return ids;
    }
    const json& token = member(member(part, "SpecialToken", place), "id", place);
    if (!token.is_string()) refuse();
    const auto& known = member(stage, "special_tokens", place);
    const auto& text = token.get_ref<const std::string&>();
    const json& token_ids = member(member(known, text, place), "ids", place);
    if (!token_ids.is_array()) refuse_field(where, quoted(name + ".special_tokens"), known, "a list of ids for each");
    for (const json& id : token_ids) ids.push_back(read_token_id(id, place, text));
  }
  refuse();
  return ids;
}

BpeRules read_byte_level_rules(const json& root, const std::string& where) {
  BpeRules rules;
  rules.normalizer = read_normalizer(root.value("normalizer", json()), where);
  read_pre_tokenizer(member(root, "pre_tokenizer", where), where, rules);
  const json decoder = root.value("decoder", json());
  if (!decoder.is_null()) check_byte_level(decoder, where, "decoder");
  check_bpe(root, where, {false, nullptr}, {false, true, nullptr});
  if (root["model"].value("ignore_merges", json()) == true) rules.whole_parts = BpeRules::WholeParts::kAsTokens;
  return rules;
}

}  // namespace

BpeRules read_rules(const json& root, const std::string& where) {
  if (!root.is_object()) throw Error(where + ": found " + shown(root) + "; expected an object");
  check_fields(root, where, "",
               {{"version", {}},
                {"truncation", {}},
                {"padding", {}},
                {"added_tokens", {}},
                {"normalizer", {}},
                {"pre_tokenizer", {}},
                {"post_processor", {}},
                {"decoder", {}},
                {"model", {}}});
  return is_converted(root) ? read_converted_rules(root, where) : read_byte_level_rules(root, where);
}

std::vector<std::int32_t> prefix_of(const json& post_processor, const std::string& where) {
  if (post_processor.is_null()) return {};
  std::optional<std::vector<std::int32_t>> prefix;
  for (const auto& [name, part] : stages_of(post_processor, "post_processor", "processors", where)) {
    if (!has_type(*part, "TemplateProcessing")) {
      check_byte_level(*part, where, name);
      continue;
    }
    if (prefix) refuse_field(where, quoted(name), *part, "one template");
    prefix = ids_before_text(*part, where, name);
  }
  return prefix.value_or(std::vector<std::int32_t>());
}

}  // namespace rometrace

#include "text/rule_fields.hpp"

#include <algorithm>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/json_shown.hpp"

namespace rometrace {

using nlohmann::json;

const json& member(const json& object, std::string_view name, const std::string& where) {
  if (!object.is_object()) throw Error(where + ": found " + shown(object) + "; expected an object");
  const auto found = object.find(name);
  if (found == object.end()) {
    throw Error(where + ": has no " + quoted(one_line(name, 60)) + "; expected one; is the file complete?");
  }
  return *found;
}

void refuse_field(const std::string& where, const std::string& field, const json& found, const std::string& expected) {
  throw Error(where + ": " + field + " is " + shown(found) + "; expected " + expected +
              "; rometrace reads byte-level BPE as GPT-2, GPT-NeoX, Llama 3 and Qwen have it, and BPE converted from "
              "SentencePiece as Llama 2, Mistral and Gemma have it; without this file it reads a tokenizer.model");
}

std::string quoted(const std::string& name) {
  return "\"" + name + "\"";
}

namespace {

std::string one_of(const std::vector<json>& values) {
  std::string list;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) list += i + 1 < values.size() ? ", " : " or ";
    list += shown(values[i]);
  }
  return list;
}

}  // namespace

void check_fields(const json& object, const std::string& where, const std::string& prefix,
                  const std::vector<KnownField>& known) {
  for (const auto& [name, value] : object.items()) {
    const std::string field = quoted(prefix + one_line(name, 60));
    const auto at = std::ranges::find_if(known, [&key = name](const KnownField& entry) { return key == entry.name; });
    if (at == known.end()) refuse_field(where, field, value, "no such field");
    const bool allowed = at->allowed.empty() || std::ranges::find(at->allowed, value) != at->allowed.end();
    if (!allowed) refuse_field(where, field, value, one_of(at->allowed));
  }
}

void check_bpe(const json& root, const std::string& where, const std::vector<json>& byte_fallback,
               const std::vector<json>& ignore_merges) {
  const json& model = member(root, "model", where);
  if (!model.is_object()) throw Error(where + ": \"model\" is " + shown(model) + "; expected an object");
  check_fields(model, where, "model.",
               {{"type", {"BPE"}},
                {"dropout", {nullptr, 0.0}},
                {"unk_token", {}},  // without effect: every byte has a token, or encoding says which has none
                {"continuing_subword_prefix", {nullptr, ""}},
                {"end_of_word_suffix", {nullptr, ""}},
                {"fuse_unk", {}},
                {"byte_fallback", byte_fallback},
                {"ignore_merges", ignore_merges},
                {"vocab", {}},
                {"merges", {}}});
}

bool has_type(const json& stage, std::string_view type) {
  return stage.is_object() && stage.value("type", json()) == std::string(type);
}

std::vector<Stage> stages_of(const json& stage, const std::string& name, const char* member_name,
                             const std::string& where) {
  if (!has_type(stage, "Sequence")) return {{name, &stage}};
  check_fields(stage, where, name + ".", {{"type", {}}, {member_name, {}}});
  const json& list = member(stage, member_name, where + ", " + name);
  const std::string list_name = name + "." + member_name;
  if (!list.is_array()) refuse_field(where, quoted(list_name), list, "a list");
  std::vector<Stage> stages;
  for (std::size_t i = 0; i < list.size(); ++i) {
    stages.emplace_back(list_name + "[" + std::to_string(i) + "]", &list[i]);
  }
  return stages;
}

bool read_flag(const json& object, const char* name, const std::string& where, const std::string& prefix) {
  const json& value = member(object, name, where + ", " + prefix);
  if (!value.is_boolean()) refuse_field(where, quoted(prefix + "." + name), value, "true or false");
  return value.get<bool>();
}

}  // namespace rometrace

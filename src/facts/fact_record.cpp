#include "facts/fact_record.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/likeness.hpp"
#include "rometrace/text/strip.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

/// A value and the name under which it was found.
struct Field {
  const char* name = nullptr;
  const json* value = nullptr;

  explicit operator bool() const { return value != nullptr; }
};

/// The first of `names` that `object` has and that is not null.
Field find_field(const json& object, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto found = object.find(name); found != object.end() && !found->is_null()) return {name, &*found};
  }
  return {};
}

/// The text of a field; throws Error with `where` unless it is a string with something in it.
std::string read_text(const Field& field, const std::string& where) {
  const std::string what = where + ": " + field.name;
  if (!field.value->is_string()) throw Error(what + " is " + one_line(field.value->dump()) + "; expected a string");
  auto text = field.value->get<std::string>();
  if (strip(text).empty()) throw Error(what + " is empty");
  if (text.find('\0') != std::string::npos) throw Error(what + " holds a zero byte: " + in_quotes(text));
  return text;
}

bool holds(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

Wording filled(std::string_view text, std::string_view subject, bool held_out = false) {
  auto placed = fill_slot(text, subject);
  return {std::move(placed.prompt), held_out, placed.subject};
}

/// Where a record says that its prompt has the subject.
std::optional<SubjectPlace> read_subject_place(const json& record, const json& body, const std::string& where) {
  Field field = find_field(body, {"subject_at"});
  if (!field) field = find_field(record, {"subject_at"});
  if (!field) return std::nullopt;
  const json& value = *field.value;
  const auto is_place = [](const json& number) { return number.is_number_unsigned(); };
  if (value.is_array() && value.size() == 2 && is_place(value[0]) && is_place(value[1]) && value[0] < value[1]) {
    return SubjectPlace{.which = SubjectPlace::Which::kBytes,
                        .bytes = {value[0].get<std::size_t>(), value[1].get<std::size_t>()}};
  }
  try {
    return SubjectPlace::parse(value.is_string() ? value.get<std::string>() : value.dump());
  } catch (const Error& error) {
    throw Error(where + ": subject_at is " + error.what());
  }
}

/// A prompt with the subject in place, from a template or a whole text; `remark` says what was left open.
Wording read_prompt(const Field& field, const std::string& subject, const std::optional<SubjectPlace>& place,
                    const std::string& where, std::string& remark) {
  const std::string text = read_text(field, where);
  const auto slots = occurrences_of(kSubjectSlot, text);
  if (slots > 1) {
    throw Error(where + ": " + field.name + " " + in_quotes(text) + " has {} " + std::to_string(slots) +
                " times; expected it once");
  }
  if ((slots == 0 || place) && !holds(text, subject)) {
    throw Error(where + ": subject " + in_quotes(subject) + " is not in the prompt " + in_quotes(text) +
                alike_words(text, subject) + "; check its spelling, or put {} in its place");
  }
  try {
    auto choice = place_subject(text, subject, place);
    if (choice.slot_and_text) {
      remark = where + ": the prompt " + in_quotes(text) + " has {} and, elsewhere, the subject " + in_quotes(subject) +
               "; {} was taken for its place (where {} is text, give subject_at)";
    } else if (choice.occurrences > 1) {
      remark = where + ": the subject " + in_quotes(subject) + " is in the prompt " + in_quotes(text) + " " +
               std::to_string(choice.occurrences) + " times; the first was taken (subject_at chooses)";
    }
    return {std::move(choice.placed.prompt), false, choice.placed.subject};
  } catch (const Error& error) {
    throw Error(where + ": subject_at: " + error.what());
  }
}

/// Further whole texts, as one string or a list; those without the subject are left out.
std::vector<Wording> read_paraphrases(const json& record, const std::string& subject, const std::string& where) {
  const Field field = find_field(record, {"paraphrase_prompts", "rephrase_prompt"});
  if (!field) return {};
  const json list = field.value->is_array() ? *field.value : json::array({*field.value});
  std::vector<Wording> wordings;
  for (const json& text : list) {
    if (!text.is_string()) {
      throw Error(where + ": " + field.name + " has " + one_line(text.dump()) + "; expected strings");
    }
    const auto& prompt = text.get_ref<const std::string&>();
    if (holds(prompt, subject)) wordings.push_back({prompt, false, find_subject(prompt, subject)});
  }
  return wordings;
}

std::optional<std::string> read_object(const json& body, std::initializer_list<const char*> names,
                                       const std::string& where) {
  Field field = find_field(body, names);
  if (!field) return std::nullopt;
  if (field.value->is_object()) {  // CounterFact: {"str": "French", "id": "Q150"}
    const Field text = find_field(*field.value, {"str"});
    if (!text) throw Error(where + ": " + field.name + " has no \"str\"");
    field.value = text.value;
  }
  return std::string(strip(read_text(field, where)));
}

/// Prompts of an edit's evaluation, one or a list; {} in a text is the subject's place.
std::vector<std::string> read_prompts(const json& record, std::initializer_list<const char*> names,
                                      const std::string& subject, const std::string& where) {
  const Field field = find_field(record, names);
  if (!field) return {};
  const json list = field.value->is_array() ? *field.value : json::array({*field.value});
  std::vector<std::string> prompts;
  for (const json& text : list) {
    auto prompt = read_text({field.name, &text}, where);
    const auto slots = occurrences_of(kSubjectSlot, prompt);
    if (slots > 1) {
      throw Error(where + ": " + field.name + " " + in_quotes(prompt) + " has {} " + std::to_string(slots) +
                  " times; expected it once, or a whole text");
    }
    prompts.push_back(slots == 1 ? fill_slot(prompt, subject).prompt : std::move(prompt));
  }
  return prompts;
}

/// What an edit needs. Throws Error.
void read_edit(const json& record, const json& body, Fact& fact, const std::string& where) {
  fact.new_object = read_object(body, kNewObjectNames, where);
  if (fact.new_object && fact.new_object == fact.object) {
    throw Error(where + ": the new object " + in_quotes(*fact.new_object) +
                " is the old one; expected another, or none to leave the record as it is");
  }
  fact.paraphrases =
      read_prompts(record, {"paraphrases", "paraphrase_prompts", "rephrase_prompt"}, fact.subject, where);
  fact.neighbours =
      read_prompts(record, {"neighbours", "neighborhood_prompts", "locality_prompt"}, fact.subject, where);
}

/// Of the same text twice the first place of the subject counts.
void add_wording(std::vector<Wording>& wordings, Wording wording) {
  const auto same =
      std::find_if(wordings.begin(), wordings.end(), [&](const Wording& w) { return w.prompt == wording.prompt; });
  if (same == wordings.end()) {
    wordings.push_back(std::move(wording));
  } else {
    same->held_out |= wording.held_out;
  }
}

const RelationTexts* find_relation(const Relations& relations, const std::optional<std::string>& name,
                                   const std::string& where) {
  if (!name) return nullptr;
  const auto found = relations.find(*name);
  if (found == relations.end()) return nullptr;
  if (!found->second.fault.empty()) throw Error(where + ": " + found->second.fault);
  return &found->second;
}

std::vector<Wording> read_wordings(const json& record, const json& body, const Relations& relations, Fact& fact,
                                   const std::string& where) {
  const Field prompt = find_field(body, {"prompt"});
  const RelationTexts* relation = find_relation(relations, fact.relation, where);
  if (!prompt && relation == nullptr) {
    throw Error(where + ": has no \"prompt\"" +
                (fact.relation ? ", and its relation " + in_quotes(*fact.relation) + " is not defined in the file"
                               : std::string(" and no \"relation\"")));
  }
  std::vector<Wording> wordings;
  if (prompt) {
    const auto place = read_subject_place(record, body, where);
    add_wording(wordings, read_prompt(prompt, fact.subject, place, where, fact.remark));
    for (auto& wording : read_paraphrases(record, fact.subject, where)) add_wording(wordings, std::move(wording));
  }
  if (relation != nullptr) {
    for (const Wording& wording : relation->templates) {
      add_wording(wordings, filled(wording.prompt, fact.subject, wording.held_out));
    }
  }
  return wordings;
}

/// Sorts and checks templates; they are named by their place in `kind`.
class TemplateList {
 public:
  explicit TemplateList(std::string_view name) : relation_("relation " + in_quotes(name)) {}

  void add(const json& text, const std::string& place, bool held_out) {
    if (!text.is_string()) return fail(": " + place + " is " + one_line(text.dump()) + "; expected a string with {}");
    const auto wording = text.get<std::string>();
    if (const std::size_t slots = occurrences_of(kSubjectSlot, wording); slots != 1) {
      return fail(": " + place + " " + in_quotes(wording) + " has {} " + std::to_string(slots) +
                  " times; expected it once, where the subject goes");
    }
    if (holds(wording, std::string_view("\0", 1))) return fail(": " + place + " holds a zero byte");
    add_wording(held_out ? held_out_ : others_, {wording, held_out});
  }

  void fail(const std::string& what) {
    if (fault_.empty()) fault_ = relation_ + what;
  }

  RelationTexts take() {
    if (others_.empty() && held_out_.empty()) fail(" has no wordings");
    RelationTexts texts{std::move(others_), std::move(fault_)};
    for (Wording& wording : held_out_) add_wording(texts.templates, std::move(wording));
    return texts;
  }

 private:
  std::string relation_;
  std::vector<Wording> others_;
  std::vector<Wording> held_out_;
  std::string fault_;
};

void add_wordings(TemplateList& templates, const json& wordings) {
  if (!wordings.is_array()) {
    return templates.fail(": wordings is " + one_line(wordings.dump()) + "; expected a list");
  }
  std::size_t number = 0;
  for (const json& wording : wordings) {
    const std::string place = "wording " + std::to_string(++number);
    if (!wording.is_object()) {
      templates.add(wording, place, false);
      continue;
    }
    const json held_out = wording.value("held_out", json(false));
    if (!held_out.is_boolean()) {
      templates.fail(": held_out of " + place + " is " + one_line(held_out.dump()) + "; expected true or false");
      continue;
    }
    templates.add(wording.value("text", json()), place, held_out.get<bool>());
  }
}

}  // namespace

std::optional<GivenId> given_id(const json& record) {
  if (!record.is_object()) return std::nullopt;
  const Field field = find_field(record, kIdNames);
  if (!field) return std::nullopt;
  if (field.value->is_number_integer()) return GivenId{field.name, field.value->dump(), true};
  if (!field.value->is_string() || strip(field.value->get_ref<const std::string&>()).empty()) return std::nullopt;
  return GivenId{field.name, field.value->get<std::string>(), false};
}

std::string label_of_record(const json& record, const std::string& where) {
  if (!record.is_object()) return where;
  const Field id = find_field(record, kIdNames);
  return id ? where + " (" + id.name + " " + one_line(id.value->dump(), 40) + ")" : where;
}

Fact read_fact(const json& record, const Relations& relations, Need need, const std::string& where) {
  if (!record.is_object()) {
    throw Error(where + ": expected an object with a \"subject\", found " + one_line(record.dump()));
  }
  const std::string label = label_of_record(record, where);
  const Field rewrite = find_field(record, {"requested_rewrite"});
  if (rewrite && !rewrite.value->is_object()) {
    throw Error(label + ": requested_rewrite is " + one_line(rewrite.value->dump()) + "; expected an object");
  }
  const json& body = rewrite ? *rewrite.value : record;

  Fact fact;
  const Field subject = find_field(body, {"subject"});
  if (!subject) throw Error(label + ": has no \"subject\"");
  fact.subject = std::string(strip(read_text(subject, label)));
  if (need == Need::kSubject) return fact;

  if (const auto id = given_id(record)) {
    fact.id = id->text;
    fact.id_is_number = id->is_number;
  } else if (const Field wrong = find_field(record, kIdNames)) {
    throw Error(where + ": " + wrong.name + " is " + one_line(wrong.value->dump()) +
                "; expected a whole number or a text");
  }
  if (const Field relation = find_field(body, kRelationNames)) fact.relation = read_text(relation, label);
  fact.object = read_object(body, kObjectNames, label);
  fact.wordings = read_wordings(record, body, relations, fact, label);
  if (need == Need::kEdit) read_edit(record, body, fact, label);
  return fact;
}

bool is_relation_file(const json& value) {
  return value.is_object() && value.contains("samples") && !value.contains("subject");
}

bool looks_like_record(const json& value) {
  if (!value.is_object()) return false;
  const auto names = {"subject", "prompt", "requested_rewrite", "samples"};
  return std::any_of(names.begin(), names.end(), [&](const char* name) { return value.contains(name); });
}

std::string layout_of_record(const json& record) {
  if (is_relation_file(record)) return "relation files";
  if (!record.is_object()) return "tuples";
  if (record.contains("requested_rewrite")) return "CounterFact";
  if (record.contains("ground_truth")) return "CounterFact, flat";
  if (record.contains("known_id")) return "known_1000 of ROME";
  return "tuples";
}

RelationTexts read_relation(const json& relation, std::string_view name) {
  TemplateList templates(name);
  if (relation.is_string()) {
    templates.add(relation, "its text", false);
  } else if (relation.is_array()) {
    add_wordings(templates, relation);
  } else if (relation.is_object()) {
    if (const Field prompt = find_field(relation, {"prompt"})) templates.add(*prompt.value, "prompt", false);
    if (const Field wordings = find_field(relation, {"wordings"})) add_wordings(templates, *wordings.value);
  } else {
    templates.fail(" is " + one_line(relation.dump()) + "; expected an object with \"wordings\"");
  }
  return templates.take();
}

RelationTexts read_relation_file(const json& file, std::string_view name) {
  TemplateList templates(name);
  for (const char* list : {"prompt_templates", "prompt_templates_zs"}) {
    const Field field = find_field(file, {list});
    if (!field) continue;
    if (!field.value->is_array()) {
      templates.fail(": " + std::string(list) + " is " + one_line(field.value->dump()) + "; expected a list");
      continue;
    }
    std::size_t number = 0;
    for (const json& text : *field.value) {
      templates.add(text, std::string(list) + " " + std::to_string(++number), false);
    }
  }
  return templates.take();
}

}  // namespace rometrace

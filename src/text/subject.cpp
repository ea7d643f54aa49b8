#include "rometrace/text/subject.hpp"

#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/likeness.hpp"

namespace rometrace {
namespace {

std::optional<std::size_t> whole_number(std::string_view text) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::vector<ByteRange> places_of(std::string_view prompt, std::string_view subject) {
  std::vector<ByteRange> places;
  for (auto at = prompt.find(subject); at != std::string_view::npos; at = prompt.find(subject, at + 1)) {
    places.push_back({at, at + subject.size()});
  }
  return places;
}

/// Whether a character belongs to a word, an accent on a letter too.
bool is_part_of_word(std::string_view character) {
  const auto units = icu::UnicodeString::fromUTF8({character.data(), static_cast<std::int32_t>(character.size())});
  const auto point = units.char32At(0);
  return u_isalnum(point) != 0 || (U_GET_GC_MASK(point) & U_GC_M_MASK) != 0;
}

/// Whether a word goes on over the place `at` of a text.
bool is_inside_word(std::string_view text, std::size_t at) {
  if (at == 0 || at == text.size()) return false;
  const auto goes_on = [&](std::size_t place) { return (static_cast<unsigned char>(text[place]) & 0xC0U) == 0x80U; };
  std::size_t before = at - 1, end = at + 1;
  while (before > 0 && goes_on(before)) --before;
  while (end < text.size() && goes_on(end)) ++end;
  return is_part_of_word(text.substr(before, at - before)) && is_part_of_word(text.substr(at, end - at));
}

/// Whether a template has the subject's text as words of its own outside its slot: "time" in "The time of {}", not in
/// "The sentiment of {}".
bool stands_beside_slot(std::string_view text, std::string_view subject) {
  const auto slot = text.find(kSubjectSlot);
  const auto places = places_of(text, subject);
  return std::any_of(places.begin(), places.end(), [&](const ByteRange& place) {
    const bool is_apart = place.end <= slot || place.begin >= slot + kSubjectSlot.size();
    return is_apart && !is_inside_word(text, place.begin) && !is_inside_word(text, place.end);
  });
}

}  // namespace

SubjectPlace SubjectPlace::parse(std::string_view text) {
  if (text == "first") return {};
  if (text == "last") return {.which = Which::kLast};
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) {
    if (const auto number = whole_number(text); number && *number >= 1) {
      return {.which = Which::kNumber, .number = *number};
    }
  } else {
    const auto begin = whole_number(text.substr(0, colon)), end = whole_number(text.substr(colon + 1));
    if (begin && end && *begin < *end) return {.which = Which::kBytes, .bytes = {*begin, *end}};
  }
  throw Error(in_quotes(text) +
              "; expected first, last, the number of an occurrence from 1, or bytes of the prompt as 4:9");
}

std::size_t occurrences_of(std::string_view part, std::string_view text) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

ByteRange find_subject(std::string_view prompt, std::string_view subject, const SubjectPlace& place) {
  if (subject.empty()) {
    throw Error("the subject of the prompt " + in_quotes(prompt, kShownTextBytes) +
                " is empty; expected a part of the prompt");
  }
  const auto places = places_of(prompt, subject);
  if (places.empty()) {
    throw Error("subject " + in_quotes(subject, kShownTextBytes) + " is not in the prompt " +
                in_quotes(prompt, kShownTextBytes) + alike_words(prompt, subject) +
                "; expected it letter for letter; check its spelling, capitals and spaces");
  }
  switch (place.which) {
    case SubjectPlace::Which::kFirst:
      return places.front();
    case SubjectPlace::Which::kLast:
      return places.back();
    case SubjectPlace::Which::kNumber:
      if (place.number <= places.size()) return places[place.number - 1];
      throw Error("subject " + in_quotes(subject, kShownTextBytes) + " is in the prompt " +
                  in_quotes(prompt, kShownTextBytes) + " " + std::to_string(places.size()) +
                  (places.size() == 1 ? " time" : " times") + "; expected " + std::to_string(place.number));
    case SubjectPlace::Which::kBytes:
      break;
  }
  for (const auto& found : places) {
    if (found == place.bytes) return found;
  }
  const auto& [begin, end] = place.bytes;
  const auto there = begin < prompt.size() ? in_quotes(prompt.substr(begin, end - begin), kShownTextBytes) : "nothing";
  throw Error("bytes " + std::to_string(begin) + ":" + std::to_string(end) + " of the prompt " +
              in_quotes(prompt, kShownTextBytes) + " are " + there + "; expected the subject " +
              in_quotes(subject, kShownTextBytes) + ", which begins at byte " + std::to_string(places.front().begin));
}

PlacedSubject fill_slot(std::string_view text, std::string_view subject) {
  const auto slots = occurrences_of(kSubjectSlot, text);
  if (slots != 1) {
    throw Error(in_quotes(text) + " has {} " + std::to_string(slots) + " times; expected it once");
  }
  const auto slot = text.find(kSubjectSlot);
  PlacedSubject placed{std::string(text.substr(0, slot)), {slot, slot + subject.size()}};
  placed.prompt.append(subject).append(text.substr(slot + kSubjectSlot.size()));
  return placed;
}

SubjectChoice place_subject(std::string_view text, std::string_view subject, const std::optional<SubjectPlace>& place) {
  SubjectChoice choice;
  if (!place && !subject.empty() && occurrences_of(kSubjectSlot, text) == 1) {
    choice.placed = fill_slot(text, subject);
    choice.slot_and_text = stands_beside_slot(text, subject);
    return choice;
  }
  choice.placed = {std::string(text), find_subject(text, subject, place.value_or(SubjectPlace{}))};
  if (!place) choice.occurrences = occurrences_of(subject, text);
  return choice;
}

TokenRange tokens_of_subject(std::span<const Token> tokens, std::string_view prompt, const ByteRange& subject) {
  TokenRange range{tokens.size(), 0};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    // An empty token (a SentencePiece model's leading "▁") shares no byte with anything.
    const bool shares_a_byte =
        tokens[i].begin < tokens[i].end && tokens[i].begin < subject.end && subject.begin < tokens[i].end;
    if (!shares_a_byte) continue;
    if (range.begin == tokens.size()) range.begin = i;
    range.end = i + 1;
  }
  if (range.begin >= range.end) {
    throw Error("subject " + in_quotes(prompt.substr(subject.begin, subject.size()), kShownTextBytes) +
                " of the prompt " + in_quotes(prompt, kShownTextBytes) +
                " has no token of its own; expected at least one; the tokeniser drops these characters");
  }
  return range;
}

TokenRange find_subject(std::span<const Token> tokens, std::string_view prompt, std::string_view subject) {
  return tokens_of_subject(tokens, prompt, find_subject(prompt, subject));
}

}  // namespace rometrace

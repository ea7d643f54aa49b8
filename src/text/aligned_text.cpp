#include "rometrace/text/aligned_text.hpp"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/edits.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

void check(UErrorCode status, const char* what) {
  if (U_FAILURE(status)) throw Error(std::string(what) + ": ICU cannot do it (" + u_errorName(status) + ")");
}

icu::StringPiece piece_of(std::string_view text) {
  return {text.data(), static_cast<std::int32_t>(text.size())};
}

std::vector<AlignedText::Change> changes_of(const icu::Edits& edits) {
  std::vector<AlignedText::Change> changes;
  auto at = edits.getFineChangesIterator();
  for (UErrorCode status = U_ZERO_ERROR; at.next(status);) {
    const auto now = static_cast<std::size_t>(at.destinationIndex());
    const auto before = static_cast<std::size_t>(at.sourceIndex());
    changes.push_back({{now, now + static_cast<std::size_t>(at.newLength())},
                       {before, before + static_cast<std::size_t>(at.oldLength())}});
  }
  return changes;
}

const icu::Normalizer2& nfc() {
  static const icu::FilteredNormalizer2 normalizer = [] {
    UErrorCode status = U_ZERO_ERROR;
    const auto* all = icu::Normalizer2::getNFCInstance(status);
    check(status, "NFC");
    // Never destroyed, as the normaliser holds a reference.
    static const icu::UnicodeSet* const known = [] {
      UErrorCode problem = U_ZERO_ERROR;
      auto* set = new icu::UnicodeSet(UNICODE_STRING_SIMPLE("[:age=9.0:]"), problem);
      check(problem, "NFC");
      set->freeze();
      return set;
    }();
    return icu::FilteredNormalizer2(*all, *known);
  }();
  return normalizer;
}

}  // namespace

ByteRange AlignedText::original(std::size_t begin, std::size_t end) const {
  const auto moved = [](std::size_t at, const Change& last) { return at - last.now.end + last.before.end; };
  // The first change that ends behind `begin`, and the first that ends at `end` or behind it.
  const auto first = std::ranges::upper_bound(changes_, begin, {}, [](const Change& change) { return change.now.end; });
  const auto last = std::ranges::lower_bound(changes_, end, {}, [](const Change& change) { return change.now.end; });
  ByteRange range{begin, end};
  if (first != changes_.end() && first->now.begin <= begin) {
    range.begin = first->before.begin;
  } else if (first != changes_.begin()) {
    range.begin = moved(begin, *std::prev(first));
  }
  if (last != changes_.end() && last->now.begin < end) {
    range.end = last->before.end;
  } else if (last != changes_.begin()) {
    range.end = moved(end, *std::prev(last));
  }
  range.end = std::max(range.begin, range.end);
  return range;
}

AlignedText to_nfc(std::string_view text) {
  std::string written;
  icu::StringByteSink<std::string> sink(&written);
  icu::Edits edits;
  UErrorCode status = U_ZERO_ERROR;
  nfc().normalizeUTF8(0, piece_of(text), sink, &edits, status);
  check(status, "NFC");
  return {std::move(written), changes_of(edits)};
}

AlignedText to_lower_case(std::string_view text) {
  std::string written;
  icu::StringByteSink<std::string> sink(&written);
  icu::Edits edits;
  UErrorCode status = U_ZERO_ERROR;
  icu::CaseMap::utf8ToLower("", 0, piece_of(text), sink, &edits, status);
  check(status, "lower case");
  return {std::move(written), changes_of(edits)};
}

}  // namespace rometrace

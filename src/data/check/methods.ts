/** How each number of a check was computed, for readers of the page who want to know, or to doubt. */

export const methods = {
  reading: [
    'Reading',
    'Every file is decoded whole, by what is in it and not by its name; turned as the camera held it, colours brought to sRGB, transparency laid on white. A file is left out where that fails, with the reason.',
  ],
  exact: [
    'Exact copies',
    'sha256 over width, height and the decoded, turned pixels. Equal means that no program and no eye can tell the two apart.',
  ],
  copies: [
    'Edited copies',
    'Each picture gets a fingerprint of 256 bits that survives saving again, scaling and recolouring (a perceptual hash); with --deep, features of an image network as well, which survive cropping and turning. Both only propose pairs. A pair counts when the pixels themselves agree, laid on each other at the best shift, scale, turn and mirror; from which agreement on is measured on copies made of your own pictures. Every member of a group was compared with its first.',
  ],
  scenes: [
    'Same scene',
    'Pictures that share part of their pixels without being copies; pictures of one camera taken within moments of each other; names that count on (clip_0001, clip_0002) or share a stem.',
  ],
  conflicts: ['Conflicts', 'Groups of exact or edited copies in which not all labels are the same.'],
  'across-split': [
    'Copies across your split',
    'Groups of copies or of one scene (by pixels or time, not by names alone) with a member in your test folder and one in train or validation. The two accuracies (with --deep) are of one logistic regression on features of an image network, trained on your train folder as it is: on all test pictures, and on those that are in no such group. Your own model will have other numbers; the gap is what to look at.',
  ],
  shortcuts: [
    'Shortcuts',
    'Guesses the class from what is known of the file (format, size, shape, camera, day, hour, transparency and the like) or from one number about its light, never from what is shown. What is counted in four fifths of the pictures is tried on the last fifth, copies and scenes counting once, all classes weighing alike. Told where one class against the rest is hit in 60 points more than it is hit by mistake (85 for light, which may be the subject itself), and where luck would say so of any property and class of the set in less than one set in a hundred (Fisher’s exact test, shared among all comparisons).',
  ],
  mislabels: [
    'Likely wrong labels',
    'Logistic regressions on features of an image network, trained on other pictures than the one that is judged, copies of it left out too; and the ten most similar pictures. The number is an estimate with a 95 % interval.',
  ],
  classes: ['Pictures of a class', '“Different” counts each group of exact or edited copies once.'],
  quality: [
    'Blurred, dark, plain, small, long',
    'On a thumbnail of 128 pixels. Blurred: at the strongest edges less than 30 % of the rise happens within one pixel, and less than two thirds of what is usual in this set. Dark: 95 % of the picture is darker than 16 % grey, and half as light as usual. One colour: lightness varies by less than 1.2 %. Small: the shorter side has under 64 pixels and under half of the usual. Long: three times as long as wide, and few pictures are. What is true of most pictures of a set is its nature and is said once.',
  ],
} as const satisfies Record<string, readonly [title: string, text: string]>

export type MethodName = keyof typeof methods

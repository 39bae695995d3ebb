package clinic

// The words that people and notes are made of.
var (
	firstNames = []string{
		"Ana", "Aaron", "Beatriz", "Caleb", "Carmen", "Chloe", "Daniel", "Deborah", "Diego", "Elena", "Elijah", "Emma", "Farid", "Fiona",
		"Gabriel", "Grace", "Hannah", "Hiro", "Ibrahim", "Irene", "Isaac", "Jamal", "Joan", "Jonas", "Julia", "Kenji", "Laila", "Leon",
		"Lucia", "Marcus", "Maria", "Mei", "Miguel", "Nadia", "Nathan", "Noor", "Olga", "Omar", "Paula", "Peter", "Priya", "Quentin",
		"Rachel", "Ravi", "Rosa", "Samuel", "Sara", "Sofia", "Stefan", "Tara", "Thomas", "Uma", "Victor", "Wanda", "Xavier", "Yara", "Yusuf", "Zoe",
	}
	lastNames = []string{
		"Abbott", "Alvarez", "Baker", "Banerjee", "Becker", "Brooks", "Campbell", "Castillo", "Chen", "Cohen", "Cruz", "Dawson", "Diaz",
		"Edwards", "Farouk", "Fischer", "Flores", "Garcia", "Gibson", "Greene", "Haddad", "Hansen", "Hernandez", "Hughes", "Ivanova",
		"Jackson", "Jensen", "Kaur", "Keller", "Kim", "Kowalski", "Larsen", "Lee", "Lopez", "Martin", "Mbeki", "Meyer", "Mitchell",
		"Morales", "Nakamura", "Nguyen", "Novak", "O'Brien", "Okafor", "Olsen", "Patel", "Pereira", "Quinn", "Ramirez", "Reed", "Rossi",
		"Sanders", "Sato", "Schmidt", "Silva", "Singh", "Stone", "Tanaka", "Torres", "Ueda", "Vargas", "Weber", "Wood", "Young", "Zhang",
	}
	areaCodes = []string{"206", "212", "303", "312", "404", "415", "503", "512", "602", "617", "702", "713", "818", "919"}
	// zipPrefixes hold some of the areas with fewer than 20,000 people, which
	// HIPAA's safe harbour wants as 000 (036, 102, 203, 556, 821, 893).
	zipPrefixes = []string{"021", "100", "112", "191", "303", "331", "441", "481", "554", "606", "752", "770", "802", "852", "891", "900", "941", "972", "981", "036", "102", "203", "556", "821", "893"}
	diagnoses   = []string{
		"E11.9 Type 2 diabetes mellitus without complications", "I10 Essential (primary) hypertension", "J45.909 Unspecified asthma, uncomplicated",
		"E78.5 Hyperlipidemia, unspecified", "F41.1 Generalized anxiety disorder", "M54.5 Low back pain", "K21.9 Gastro-esophageal reflux disease without esophagitis",
		"N39.0 Urinary tract infection, site not specified", "J06.9 Acute upper respiratory infection, unspecified", "G43.909 Migraine, unspecified",
		"B20 Human immunodeficiency virus [HIV] disease", "F32.9 Major depressive disorder, single episode, unspecified", "C50.919 Malignant neoplasm of unspecified site of unspecified female breast",
		"Z34.90 Encounter for supervision of normal pregnancy, unspecified", "L40.0 Psoriasis vulgaris", "E03.9 Hypothyroidism, unspecified",
	}
	departments = []string{"Cardiology", "Dermatology", "Endocrinology", "Family Medicine", "Neurology", "Oncology", "Pediatrics", "Psychiatry", "Radiology"}
	providers   = []string{"Dr. A. Lindqvist", "Dr. B. Osei", "Dr. C. Moreau", "Dr. D. Petrov", "Dr. E. Yamamoto", "Dr. F. Delgado", "NP G. Whitfield", "PA H. Costa"}
	reasons     = []string{"annual physical", "follow-up", "new symptoms", "medication review", "lab results", "referral", "vaccination", "post-operative check"}
	payers      = []string{"Aetna", "Blue Cross", "Cigna", "Medicaid", "Medicare", "United"}
	statuses    = []string{"paid", "paid", "paid", "submitted", "pending", "denied"}
	summaries   = []string{
		"Vitals stable. Continue current plan.",
		"{name} reports improvement since the last visit. Recheck in three months.",
		"Labs ordered; results to be phoned to {phone}.",
		"Referred to a specialist, chart {mrn} sent along.",
		"Dose adjusted. Patient understands the side effects to watch for.",
		"No-show for the first appointment; seen today.",
	}
	plainNotes = []string{
		"Allergic to penicillin.", "Walks two miles a day, non-smoker.", "Prefers morning appointments.", "Interpreter needed.", "Reports poor sleep.",
		"Family history of heart disease.", "Compliant with medication.", "Lives alone, has a dog.", "Needs wheelchair access.", "Moved here last year.",
	}
	identifyingNotes = []string{
		"Call {phone} before noon.",
		"SSN {ssn} confirmed at intake.",
		"Send the results to {email}.",
		"Insurance card lists {name}, born {dob}.",
		"Chart {mrn} merged with an older record.",
		"Daughter asked us to use {phone}, not the number on file.",
		"Forms returned by mail from {zip}; social {ssn} was left blank.",
		"Portal account {email} locked, reset by phone.",
	}
)
